import { describe, expect, it } from 'vitest';
import { decodeBf16, decodeF16, encode16, roundBf16, roundF16 } from './rounding.js';

/** All finite values of the type, ascending from 0. */
const positives = (decode: (word: number) => number, infinity: number): number[] =>
  Array.from({ length: infinity }, (_, word) => decode(word));

describe.each([
  { name: 'bf16', round: roundBf16, decode: decodeBf16, infinity: 0x7f80 },
  { name: 'f16', round: roundF16, decode: decodeF16, infinity: 0x7c00 },
])('$name', ({ name, round, decode, infinity }) => {
  const values = positives(decode, infinity);

  it('keeps every value that the type holds, and its bits', () => {
    const bits = encode16(values, name === 'bf16');
    values.forEach((value, word) => {
      if (round(value) !== value || round(-value) !== -value || bits[word] !== word)
        throw new Error(`${value}`);
    });
  });

  it('rounds halves to the even neighbour and all else to the nearer', () => {
    for (let word = 0; word + 1 < values.length; word += 7) {
      const [low, high] = [values[word]!, values[word + 1]!];
      const half = low + (high - low) / 2;
      const nextUp = half * (1 + 2 ** -22);
      if (round(half) !== (word % 2 === 0 ? low : high)) throw new Error(`half of ${low} and ${high}`);
      if (half > 2 ** -120 && round(nextUp) !== high) throw new Error(`above half of ${low} and ${high}`);
    }
  });

  it('keeps infinities and NaN', () => {
    expect([round(Infinity), round(-Infinity), round(Number.NaN)]).toEqual([Infinity, -Infinity, Number.NaN]);
  });
});

it('rounds to infinity beyond the largest f16', () => {
  expect([roundF16(65519), roundF16(65520), roundF16(-1e6)]).toEqual([65504, Infinity, -Infinity]);
});
