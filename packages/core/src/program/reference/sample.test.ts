import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { rowMode } from '../../backend/index.js';
import { logSoftmax, sampleRow, uniform, type SampleRow } from './sample.js';

const greedy = rowMode.sample | rowMode.greedy;
const plain: SampleRow = {
  mode: rowMode.sample,
  seed: 1n,
  position: 0,
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  suppressTokens: new Int32Array(),
  allowedTokens: new Int32Array(),
  biasTokens: new Int32Array(),
  biasValues: new Float32Array(),
  badWords: new Int32Array(),
  promptTokens: [],
  outputTokens: [],
  target: -1,
  numLogprobs: 0,
};
const row = (changes: Partial<SampleRow>): SampleRow => ({ ...plain, ...changes });
const logits = Float32Array.of(1, 3, 2, 3, -1);
const pick = (changes: Partial<SampleRow>, values = logits): number =>
  sampleRow(values, row({ mode: greedy, ...changes })).token;

/** The tokens that some seed picks. */
function support(changes: Partial<SampleRow>, values: Float32Array): number[] {
  const seeds = Array.from({ length: 400 }, (_, i) => BigInt(i));
  return [...new Set(seeds.map((seed) => sampleRow(values, row({ ...changes, seed })).token))].toSorted(
    (a, b) => a - b,
  );
}

describe('uniform', () => {
  it('is the doubled splitmix64 finalizer of seed and position', () => {
    // Made with Python: mix(mix((seed + (position + 1) * 0x9E3779B97F4A7C15) % 2**64)) >> 11, over 2**53.
    expect(uniform(0n, 0)).toBe(0.28176129772258496);
    expect(uniform(42n, 7)).toBe(0.5654121276461213);
    expect(uniform(0xffffffffffffffffn, 100000)).toBe(0.5270763985694492);
  });
});

describe('greedy rows', () => {
  it('takes the largest logit, the lowest id among equals', () => expect(pick({})).toBe(1));
  it('passes over suppressed tokens', () => expect(pick({ suppressTokens: Int32Array.of(1, 3) })).toBe(2));
  it('keeps to allowed tokens', () => expect(pick({ allowedTokens: Int32Array.of(4, 0) })).toBe(0));
  it('adds the bias', () =>
    expect(pick({ biasTokens: Int32Array.of(4), biasValues: Float32Array.of(4.5) })).toBe(4));
  it('lets no bias bring back a masked token', () =>
    expect(
      pick({
        suppressTokens: Int32Array.of(4),
        biasTokens: Int32Array.of(4),
        biasValues: Float32Array.of(100),
      }),
    ).toBe(1));
  it('divides positive and multiplies negative logits by the repetition penalty, over prompt and output', () => {
    expect(pick({ repetitionPenalty: 2, promptTokens: [1], outputTokens: [3, 3] })).toBe(2);
    const negative = Float32Array.of(-1, -1.5);
    expect(pick({ repetitionPenalty: 2, promptTokens: [0] }, negative)).toBe(1);
  });
  it('counts only output tokens for presence and frequency penalties', () => {
    expect(pick({ presencePenalty: 2, promptTokens: [1] })).toBe(1);
    expect(pick({ presencePenalty: 2, outputTokens: [1] })).toBe(3);
    expect(pick({ frequencyPenalty: 0.6, outputTokens: [1, 1, 3] })).toBe(3);
    expect(pick({ frequencyPenalty: 0.6, outputTokens: [1, 1, 3, 3] })).toBe(2);
  });
  it('forbids the last token of a bad word after its beginning only', () => {
    const badWords = Int32Array.of(3, 7, 8, 1);
    expect(pick({ badWords, outputTokens: [7, 8] })).toBe(3);
    expect(pick({ badWords, outputTokens: [8] })).toBe(1);
    expect(pick({ badWords, promptTokens: [7, 8] })).toBe(1);
    expect(pick({ badWords: Int32Array.of(1, 1, 1, 3) })).toBe(2);
  });
  it('takes NaN for the least', () => expect(pick({}, Float32Array.of(Number.NaN, -5, Number.NaN))).toBe(1));
  it('gives token 0 where everything is masked', () =>
    expect(pick({ allowedTokens: Int32Array.of(1), suppressTokens: Int32Array.of(1) })).toBe(0));
});

describe('the kept set', () => {
  const values = Float32Array.from([0.4, 0.1, 0.2, 0.2, 0.1].map(Math.log));

  it('is all without restrictions', () => expect(support({}, values)).toEqual([0, 1, 2, 3, 4]));
  it('keeps all ties at the k-th place', () => {
    expect(support({ topK: 1 }, values)).toEqual([0]);
    expect(support({ topK: 2 }, values)).toEqual([0, 2, 3]);
    expect(support({ topK: 9 }, values)).toEqual([0, 1, 2, 3, 4]);
  });
  it('keeps the shortest prefix of enough weight, lower ids first', () => {
    expect(support({ topP: 0.01 }, values)).toEqual([0]);
    expect(support({ topP: 0.55 }, values)).toEqual([0, 2]);
    expect(support({ topP: 0.85 }, values)).toEqual([0, 1, 2, 3]);
  });
  it('applies top_p to what top_k leaves', () =>
    expect(support({ topK: 2, topP: 0.7 }, values)).toEqual([0, 2]));
  it('keeps weights of at least min_p of the largest', () =>
    expect(support({ minP: 0.45 }, values)).toEqual([0, 2, 3]));
  it('applies temperature first', () =>
    expect(support({ minP: 0.45, temperature: 4 }, values)).toEqual([0, 1, 2, 3, 4]));
});

describe('sampled rows', () => {
  it('have the probabilities of the softmax', () => {
    const values = Float32Array.of(0, 1, 2);
    const counts = [0, 0, 0];
    const n = 20_000;
    for (let seed = 0; seed < n; seed++) counts[sampleRow(values, row({ seed: BigInt(seed) })).token]!++;
    const total = 1 + Math.E + Math.E ** 2;
    counts.forEach((count, i) => {
      const p = Math.E ** i / total;
      // Five standard deviations.
      expect(Math.abs(count - n * p)).toBeLessThan(5 * Math.sqrt(n * p * (1 - p)));
    });
  });

  it('depend on seed and position alone', () => {
    const property = fc.property(fc.bigInt(0n, 2n ** 64n - 1n), fc.nat(1e6), (seed, position) => {
      const one = sampleRow(logits, row({ seed, position }));
      expect(sampleRow(logits, row({ seed, position, numLogprobs: 3 })).token).toBe(one.token);
    });
    fc.assert(property, { numRuns: 50 });
    expect(support({ position: 3 }, logits)).not.toEqual([1]);
  });
});

describe('logprobs', () => {
  const softmax = (values: readonly number[]): number[] => {
    const total = values.reduce((sum, value) => sum + Math.exp(value), 0);
    return values.map((value) => Math.log(Math.exp(value) / total));
  };

  it('are of the raw logits, with rank and the top list', () => {
    const result = sampleRow(
      logits,
      row({ mode: greedy, suppressTokens: Int32Array.of(1, 3), numLogprobs: 3 }),
    );
    const expected = softmax([1, 3, 2, 3, -1]);
    expect(result.token).toBe(2);
    expect(result.logprob).toBeCloseTo(expected[2]!, 6);
    expect(result.rank).toBe(3);
    expect(result.topIds).toEqual([1, 3, 2]);
    result.topLogprobs.forEach((value, i) => expect(value).toBeCloseTo(expected[[1, 3, 2][i]!]!, 6));
  });

  it('are of what was sampled from, if asked for', () => {
    const mode = rowMode.sample | rowMode.processedLogprobs;
    const result = sampleRow(logits, row({ mode, topK: 1, temperature: 0.5, numLogprobs: 5 }));
    const expected = softmax([6, 6]);
    expect(result.logprob).toBeCloseTo(expected[0]!, 6);
    expect(result.topIds.slice(0, 2)).toEqual([1, 3]);
    expect(result.topLogprobs.slice(2)).toEqual([-Infinity, -Infinity, -Infinity]);
  });

  it('of a target row are the target’s, and nothing is sampled', () => {
    const result = sampleRow(logits, row({ mode: rowMode.target, target: 4 }));
    expect(result).toMatchObject({ token: -1, rank: 5 });
    expect(result.logprob).toBeCloseTo(softmax([1, 3, 2, 3, -1])[4]!, 6);
  });

  it('are left out for rows that want none', () =>
    expect(sampleRow(logits, row({ numLogprobs: -1 }))).toMatchObject({ logprob: 0, rank: 0, topIds: [] }));

  it('do not overflow', () => {
    expect(Array.from(logSoftmax(Float32Array.of(1e4, 1e4)))).toEqual([
      Math.fround(-Math.LN2),
      Math.fround(-Math.LN2),
    ]);
  });
});
