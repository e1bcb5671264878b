import type { Tokenizer } from '../tokenizer/types.js';

/**
 * Token sequences of bad words, as [length, tokens…] each: a word as it starts a text, and as it follows a space. vLLM
 * leaves the second out where it has another number of tokens; then ' was', one token, stays possible beside 'w', 'as'.
 */
export function encodeBadWords(words: readonly string[], tokenizer: Tokenizer): Int32Array {
  const encoded: number[] = [];
  for (const word of words) {
    const bare = tokenizer.encode(word.trimStart(), { addSpecialTokens: false });
    const spaced = tokenizer.encode(` ${word.trimStart()}`, { addSpecialTokens: false });
    if (bare.length > 0) encoded.push(bare.length, ...bare);
    if (spaced.join() !== bare.join()) encoded.push(spaced.length, ...spaced);
  }
  return Int32Array.from(encoded);
}
