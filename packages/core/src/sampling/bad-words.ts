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

/** The tokens that would complete a bad word after these output tokens, as the sampler finds them. */
export function tokensThatCompleteBadWords(
  badWords: Int32Array,
  outputTokenIds: readonly number[],
): number[] {
  const tokens: number[] = [];
  for (let at = 0; at < badWords.length; at += badWords[at]! + 1) {
    const length = badWords[at]!;
    const begin = outputTokenIds.length - (length - 1);
    if (begin < 0) continue;
    const prefix = badWords.subarray(at + 1, at + length);
    if (prefix.every((token, i) => outputTokenIds[begin + i] === token)) tokens.push(badWords[at + length]!);
  }
  return tokens;
}
