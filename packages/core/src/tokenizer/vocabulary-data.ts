/** The bytes of every token as plain data, for threads that have no tokenizer. */
import type { Vocabulary } from '../extensions/logits-processor.js';
import type { Tokenizer } from './types.js';

export interface VocabularyData {
  /** All tokens' bytes, one after the other. */
  readonly bytes: Uint8Array;
  /** [vocabSize + 1]: where each token's bytes begin. */
  readonly offsets: Int32Array;
  /** [vocabSize]: 1 for special tokens. */
  readonly special: Uint8Array;
}

/** Ids from the tokenizer's size on, which a model may have, stand for nothing. */
export function vocabularyData(tokenizer: Tokenizer, vocabSize: number): VocabularyData {
  const tokens = Array.from({ length: vocabSize }, (_, id) => tokenizer.tokenBytes(id));
  const offsets = new Int32Array(vocabSize + 1);
  tokens.forEach((token, id) => (offsets[id + 1] = offsets[id]! + token.length));
  const bytes = new Uint8Array(offsets[vocabSize]!);
  tokens.forEach((token, id) => bytes.set(token, offsets[id]));
  const special = Uint8Array.from(tokens, (_, id) => (tokenizer.isSpecial(id) ? 1 : 0));
  return { bytes, offsets, special };
}

export function readVocabulary({ bytes, offsets, special }: VocabularyData): Vocabulary {
  const decoder = new TextDecoder();
  const bytesOf = (id: number): Uint8Array => bytes.subarray(offsets[id] ?? 0, offsets[id + 1] ?? 0);
  return {
    bytesOf: (id) => bytesOf(id).slice(),
    textOf: (id) => decoder.decode(bytesOf(id)),
    isSpecial: (id) => special[id] === 1,
  };
}
