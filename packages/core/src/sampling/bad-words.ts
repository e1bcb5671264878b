import type { Tokenizer } from '../tokenizer/types.js';

/**
 * Token sequences of bad words, as [length, tokens…] each. As in vLLM, a word counts as it starts a text and also as it
 * follows a space, where that is tokenized into as many tokens but begins differently.
 */
export function encodeBadWords(words: readonly string[], tokenizer: Tokenizer): Int32Array {
  const encoded: number[] = [];
  for (const word of words) {
    const bare = tokenizer.encode(word.trimStart(), { addSpecialTokens: false });
    const spaced = tokenizer.encode(` ${word.trimStart()}`, { addSpecialTokens: false });
    if (bare.length > 0) encoded.push(bare.length, ...bare);
    if (spaced.length === bare.length && spaced[0] !== bare[0]) encoded.push(spaced.length, ...spaced);
  }
  return Int32Array.from(encoded);
}
