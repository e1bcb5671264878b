/** The `Tokenizer` over @huggingface/tokenizers: it splits and merges; decoding is ours, token by token. */
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { asTenonError, TenonError } from '../errors.js';
import { ChatTemplates } from './chat-template.js';
import { CleanUpDetokenizer, cleanUpSpaces } from './clean-up-spaces.js';
import type { EncodeThread } from './encode-thread.js';
import { ByteLevelDetokenizer, PiecesDetokenizer, WholeDetokenizer } from './incremental-detokenizer.js';
import { ByteLevelTokens, decoderKind, PieceTokens } from './token-text.js';
import { invalidTokenizer, type TokenizerDefinition } from './tokenizer-definition.js';
import type { ChatMessage, ChatTemplateOptions, IncrementalDetokenizer, Tokenizer } from './types.js';

/** What we use of the library (whose own types don't resolve under NodeNext). */
interface Library {
  readonly model: { readonly vocab: readonly string[]; bpe_ranks?: ReadonlyMap<string, number> };
  encode(
    text: string,
    options: { add_special_tokens: boolean },
  ): { ids: (number | undefined)[]; tokens: string[] };
  decode(tokenIds: number[], options: { clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
}

export interface TextTokenizerOptions {
  /** Tokenizes long texts; without it, everything happens on the calling thread. */
  readonly thread?: EncodeThread;
  /** Texts of more UTF-16 units go to the thread. */
  readonly longTextLength?: number;
}

/** A text of this length takes the calling thread about 5 ms. */
const defaultLongTextLength = 8192;

export class TextTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly chatTemplate: string | undefined;
  readonly #definition: TokenizerDefinition;
  readonly #library: Library;
  readonly #vocabulary: readonly string[];
  readonly #specialIds: ReadonlySet<number>;
  readonly #texts: TokenTexts;
  readonly #chatTemplates: ChatTemplates;
  readonly #thread: EncodeThread | undefined;
  readonly #longTextLength: number;

  constructor(definition: TokenizerDefinition, options: TextTokenizerOptions = {}) {
    this.#definition = definition;
    this.#library = openLibrary(definition);
    this.#vocabulary = this.#library.model.vocab;
    this.#specialIds = new Set(
      definition.addedTokens.filter((token) => token.special).map((token) => token.id),
    );
    this.#texts = tokenTexts(definition, (tokenId) => this.#vocabulary[tokenId]);
    this.#chatTemplates = new ChatTemplates(definition.chatTemplates, definition.templateTokens);
    this.#thread = options.thread;
    this.#longTextLength = options.longTextLength ?? defaultLongTextLength;
    this.vocabSize = this.#vocabulary.length;
    this.bosTokenId = definition.bosTokenId;
    this.eosTokenId = definition.eosTokenId;
    this.chatTemplate = definition.chatTemplates.get('default');
  }

  encode(text: string, options: { readonly addSpecialTokens?: boolean } = {}): number[] {
    const ids = encodeWith(this.#library, this.#definition, text);
    if (options.addSpecialTokens === false) return ids;
    const { prefixIds, suffixIds } = this.#definition;
    return prefixIds.length + suffixIds.length === 0 ? ids : [...prefixIds, ...ids, ...suffixIds];
  }

  async encodeAsync(text: string, options: { readonly addSpecialTokens?: boolean } = {}): Promise<number[]> {
    if (this.#thread === undefined || text.length <= this.#longTextLength) return this.encode(text, options);
    return this.#thread.encode(text, options.addSpecialTokens ?? true);
  }

  /** Ids outside of the vocabulary are left out, as in Hugging Face's tokenizers. */
  decode(tokenIds: readonly number[], options: { readonly skipSpecialTokens?: boolean } = {}): string {
    const detokenizer = this.incremental({ skipSpecialTokens: options.skipSpecialTokens ?? false });
    return detokenizer.push(tokenIds) + detokenizer.flush();
  }

  idToToken(tokenId: number): string | undefined {
    return this.#vocabulary[tokenId];
  }

  tokenToId(token: string): number | undefined {
    return this.#library.token_to_id(token);
  }

  isSpecial(tokenId: number): boolean {
    return this.#specialIds.has(tokenId);
  }

  tokenBytes(tokenId: number): Uint8Array {
    const texts = this.#texts;
    if (texts.kind === 'byte-level') return texts.tokens.bytes(tokenId).slice();
    if (texts.kind === 'whole') return new TextEncoder().encode(this.#vocabulary[tokenId] ?? '');
    const text = texts.tokens.text(tokenId);
    return text === null ? Uint8Array.of(texts.tokens.byte(tokenId)!) : new TextEncoder().encode(text);
  }

  incremental(options: { readonly skipSpecialTokens: boolean }): IncrementalDetokenizer {
    const texts = this.#texts;
    const isSkipped = options.skipSpecialTokens ? (id: number) => this.#specialIds.has(id) : () => false;
    if (texts.kind === 'whole')
      return new WholeDetokenizer((tokenIds) => this.#decodeWhole(tokenIds, isSkipped));
    const detokenizer =
      texts.kind === 'byte-level'
        ? new ByteLevelDetokenizer(texts.tokens, isSkipped)
        : new PiecesDetokenizer(texts.tokens, isSkipped);
    return this.#definition.cleanUpSpaces ? new CleanUpDetokenizer(detokenizer) : detokenizer;
  }

  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    return this.#chatTemplates.render(messages, options);
  }

  async close(): Promise<void> {
    await this.#thread?.close();
  }

  #decodeWhole(tokenIds: readonly number[], isSkipped: (tokenId: number) => boolean): string {
    const kept = tokenIds.filter((id) => this.#vocabulary[id] !== undefined && !isSkipped(id));
    const text = kept.length === 0 ? '' : this.#library.decode(kept, { clean_up_tokenization_spaces: false });
    return this.#definition.cleanUpSpaces ? cleanUpSpaces(text) : text;
  }
}

type TokenTexts =
  | { readonly kind: 'byte-level'; readonly tokens: ByteLevelTokens }
  | { readonly kind: 'pieces'; readonly tokens: PieceTokens }
  | { readonly kind: 'whole' };

function tokenTexts(
  definition: TokenizerDefinition,
  spelling: (tokenId: number) => string | undefined,
): TokenTexts {
  const decoder = decoderKind(definition.decoder);
  if (decoder.kind === 'byte-level') return { kind: 'byte-level', tokens: new ByteLevelTokens(spelling) };
  if (decoder.kind === 'pieces') return { kind: 'pieces', tokens: new PieceTokens(decoder, spelling) };
  return { kind: 'whole' };
}

function openLibrary(definition: TokenizerDefinition): Library {
  const unknownToken =
    typeof definition.model.unk_token === 'string' ? definition.model.unk_token : undefined;
  try {
    const library: Library = new LibraryTokenizer(
      {
        normalizer: definition.normalizer,
        pre_tokenizer: definition.preTokenizer,
        model: definition.model,
        post_processor: null,
        decoder: definition.decoder,
        added_tokens: definition.addedTokens,
      },
      { unk_token: unknownToken, clean_up_tokenization_spaces: false },
    );
    if (definition.mergeRanks !== undefined) library.model.bpe_ranks = definition.mergeRanks;
    return library;
  } catch (error) {
    const what = asTenonError(error).message;
    throw error instanceof TenonError ? error : invalidTokenizer('tokenizer', what, error);
  }
}

function encodeWith(library: Library, definition: TokenizerDefinition, text: string): number[] {
  const { ids, tokens } = library.encode(text, { add_special_tokens: false });
  // Text that no token spells is left out where there is no unknown token; the library has gaps there.
  if (definition.model.type !== 'Unigram' || definition.model.byte_fallback !== true)
    return ids.filter((id) => id !== undefined);
  return ids.flatMap((id, i) =>
    id === undefined ? [] : (unigramBytes(library, definition, id, tokens[i]!) ?? [id]),
  );
}

/** Unigram models with byte fallback spell what they do not know in byte tokens, which the library leaves as unknown. */
function unigramBytes(
  library: Library,
  definition: TokenizerDefinition,
  id: number,
  piece: string,
): number[] | undefined {
  if (id !== definition.model.unk_id || library.token_to_id(piece) === id) return undefined;
  const ids = Array.from(new TextEncoder().encode(piece), (byte) =>
    library.token_to_id(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
  );
  return ids.every((byteId) => byteId !== undefined) ? ids : undefined;
}
