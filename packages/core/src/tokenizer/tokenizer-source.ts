/** The tokenizer files of a checkpoint as a definition. */
import type { TokenizerSource } from '../weights/checkpoint.js';
import { ggufDefinition } from './gguf-vocabulary.js';
import { huggingFaceDefinition } from './huggingface-definition.js';
import type { TokenizerDefinition } from './tokenizer-definition.js';

export function tokenizerDefinition(source: TokenizerSource): TokenizerDefinition | undefined {
  switch (source.kind) {
    case 'huggingface':
      return huggingFaceDefinition(source.tokenizerJson, source.tokenizerConfig, source.chatTemplate);
    case 'gguf':
      return ggufDefinition(source.metadata);
    case 'none':
      return undefined;
  }
}
