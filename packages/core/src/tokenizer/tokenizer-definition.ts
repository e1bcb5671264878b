/** What a tokenizer is made of, whatever file it came from: the input of `TextTokenizer`. */
import { TenonError } from '../errors.js';

export type JsonObject = Readonly<Record<string, unknown>>;

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Dropped by `skipSpecialTokens`. */
  readonly special: boolean;
  /** Matched in the normalized text rather than in the raw one. */
  readonly normalized: boolean;
  /** Takes the whitespace on its left, on its right, with it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

export interface TokenizerDefinition {
  readonly normalizer: JsonObject | null;
  readonly preTokenizer: JsonObject | null;
  readonly model: JsonObject;
  readonly decoder: JsonObject | null;
  readonly addedTokens: readonly AddedToken[];
  /** Ranks of merges where several may share one (SentencePiece scores); keys are JSON pairs. */
  readonly mergeRanks?: ReadonlyMap<string, number>;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** What `addSpecialTokens` puts before and after a text. */
  readonly prefixIds: readonly number[];
  readonly suffixIds: readonly number[];
  /** Remove spaces before punctuation after decoding, as transformers does for models that are not BPE. */
  readonly cleanUpSpaces: boolean;
  /** By name; `default` is the usual one, `tool_use` is preferred when there are tools. */
  readonly chatTemplates: ReadonlyMap<string, string>;
  /** `bos_token`, `eos_token`… as chat templates see them. */
  readonly templateTokens: Readonly<Record<string, string>>;
}

export function invalidTokenizer(where: string, what: string, cause?: unknown): TenonError {
  return new TenonError('config.tokenizer-invalid', `${where}: ${what}`, { cause });
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
