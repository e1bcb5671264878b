/** transformers' clean-up of spaces before punctuation and English contractions, for a whole text and for a stream. */
import type { IncrementalDetokenizer } from './types.js';

/** Applied one after the other. */
const replacements = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
] as const;

export function cleanUpSpaces(text: string): string {
  return replacements.reduce((result, [from, to]) => result.replaceAll(from, to), text);
}

/** The same on a stream: each replacement holds back what may begin its pattern. */
export class CleanUpDetokenizer implements IncrementalDetokenizer {
  readonly #source: IncrementalDetokenizer;
  readonly #held = replacements.map(() => '');

  constructor(source: IncrementalDetokenizer) {
    this.#source = source;
  }

  push(tokenIds: readonly number[]): string {
    return this.#through(this.#source.push(tokenIds), false);
  }

  flush(): string {
    return this.#through(this.#source.flush(), true);
  }

  #through(text: string, isLast: boolean): string {
    return replacements.reduce((chunk, [from, to], i) => {
      const { ready, held } = replaceInChunk(this.#held[i]! + chunk, from, to, isLast);
      this.#held[i] = held;
      return ready;
    }, text);
  }
}

function replaceInChunk(
  chunk: string,
  from: string,
  to: string,
  isLast: boolean,
): { ready: string; held: string } {
  const parts = chunk.split(from);
  const rest = parts.pop()!;
  const numHeld = isLast ? 0 : longestOverlap(rest, from);
  const end = rest.length - numHeld;
  return { ready: [...parts, rest.slice(0, end)].join(to), held: rest.slice(end) };
}

/** Length of the longest end of `text` that is a proper beginning of `pattern`. */
function longestOverlap(text: string, pattern: string): number {
  for (let length = Math.min(text.length, pattern.length - 1); length > 0; length--) {
    if (text.endsWith(pattern.slice(0, length))) return length;
  }
  return 0;
}
