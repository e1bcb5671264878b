/** Opens the tokenizer of a checkpoint. */
import type { TokenizerSource } from '../weights/checkpoint.js';
import { EncodeThread, encodeThreadEntry } from './encode-thread.js';
import { TextTokenizer } from './text-tokenizer.js';
import { tokenizerDefinition } from './tokenizer-source.js';
import type { Tokenizer } from './types.js';

export interface LoadTokenizerOptions {
  /** A template that replaces the model's (`--chat-template`). */
  readonly chatTemplate?: string;
  /** Texts of more UTF-16 units are tokenized in a worker thread. */
  readonly longTextLength?: number;
  /** The worker's file; by default the one that `npm run build` makes. */
  readonly threadEntry?: URL;
}

/** Undefined if the checkpoint has no tokenizer files. Throws `config.tokenizer-invalid`. */
export async function loadTokenizer(
  source: TokenizerSource,
  options: LoadTokenizerOptions = {},
): Promise<Tokenizer | undefined> {
  const definition = tokenizerDefinition(source);
  if (definition === undefined) return undefined;
  const entry = options.threadEntry ?? encodeThreadEntry();
  const chatTemplates =
    options.chatTemplate === undefined
      ? definition.chatTemplates
      : new Map([['default', options.chatTemplate]]);
  return new TextTokenizer(
    { ...definition, chatTemplates },
    {
      thread: entry === undefined ? undefined : new EncodeThread(source, entry),
      longTextLength: options.longTextLength,
    },
  );
}
