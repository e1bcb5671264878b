/** The references against the ops' formulas in float64, written anew here, and against values worked out by hand. */
import { describe, expect, it } from 'vitest';
import { attention } from './attention.js';
import { erf, gatedAct, gatherRows } from './elementwise.js';
import { ReferenceKvCache } from './kv-cache.js';
import { linear } from './linear.js';
import { rmsNorm } from './rms-norm.js';
import { rope, ropeCosSin } from './rope.js';
import type { StepReader } from './step-reader.js';

/** Values in (-1, 1), the same on every run. */
function noise(size: number, seed: number): Float32Array {
  return Float32Array.from({ length: size }, (_, i) => {
    const x = Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453;
    return 2 * (x - Math.floor(x)) - 1;
  });
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!(difference <= tolerance))
      throw new Error(`[${i}] is ${actual[i]}, expected ${expected[i]} ± ${tolerance}`);
  }
}

const eps32 = 2 ** -24;

describe('linear', () => {
  it.each([1, 7, 64])('is the dot product of rows, K = %i', (k) => {
    const x = { rows: 3, columns: k, data: noise(3 * k, 1) };
    const weight = { rows: 5, columns: k, data: noise(5 * k, 2) };
    const bias = noise(5, 3);
    const expected = Array.from({ length: 15 }, (_, i) => {
      const [r, n] = [Math.floor(i / 5), i % 5];
      return Array.from({ length: k }, (_v, j) => x.data[r * k + j]! * weight.data[n * k + j]!).reduce(
        (a, b) => a + b,
        0,
      );
    });
    // Each of the K additions rounds a sum of at most K.
    expectClose(linear(x, weight), expected, k * k * eps32);
    expectClose(linear(x, weight, bias), expected.map((value, i) => value + bias[i % 5]!), k * k * eps32 + eps32 * k); // prettier-ignore
  });
});

describe('rms_norm', () => {
  it('divides each run of `size` by its root mean square', () => {
    const y = rmsNorm(Float32Array.of(3, 4, 1, -1), Float32Array.of(1, 2), 2, 0);
    expectClose(y, [3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5), 1, -2], 1e-6);
  });
  it('adds eps to the mean square', () => {
    expectClose(rmsNorm(Float32Array.of(0, 0, 2, 2), Float32Array.of(1, 1), 2, 12), [0, 0, 0.5, 0.5], 1e-7);
  });
});

describe('rope', () => {
  const positions = Int32Array.of(0, 3);
  const invFreq = Float32Array.of(1, 0.25);
  const step = {} as StepReader;
  const cosSin = ropeCosSin(positions, invFreq, { rotaryDim: 4, scale: 2, dynamic: 0 }, step);
  const unit = ropeCosSin(positions, invFreq, { rotaryDim: 4, scale: 1, dynamic: 0 }, step);

  it('gives scaled cosines, then sines', () => {
    const angles = [3, 0.75];
    expectClose(
      cosSin,
      [2, 2, 0, 0, ...angles.map((a) => 2 * Math.cos(a)), ...angles.map((a) => 2 * Math.sin(a))],
      2e-7,
    );
  });

  it('pairs (i, i + n), or neighbours where interleaved, and leaves the rest of the head', () => {
    const attrs = { numHeads: 1, headDim: 5, rotaryDim: 4, interleaved: 0 };
    const x = Float32Array.of(1, 2, 3, 4, 5, 1, 2, 3, 4, 5);
    const turn = (a: number, b: number, angle: number): [number, number] => [
      a * Math.cos(angle) - b * Math.sin(angle),
      b * Math.cos(angle) + a * Math.sin(angle),
    ];
    const [first, second] = [turn(1, 3, 3), turn(2, 4, 0.75)];
    expectClose(rope(x, unit, attrs), [1, 2, 3, 4, 5, first[0], second[0], first[1], second[1], 5], 1e-6);
    const neighbours = [...turn(1, 2, 3), ...turn(3, 4, 0.75)];
    expectClose(rope(x, unit, { ...attrs, interleaved: 1 }), [1, 2, 3, 4, 5, ...neighbours, 5], 1e-6);
  });

  it('keeps lengths and, with the positions, the angle between two heads', () => {
    const attrs = { numHeads: 1, headDim: 4, rotaryDim: 4, interleaved: 0 };
    const dotAt = (p: number, q: number): number => {
      const at = (position: number, seed: number): Float32Array => {
        const table = ropeCosSin(
          Int32Array.of(position),
          invFreq,
          { rotaryDim: 4, scale: 1, dynamic: 0 },
          step,
        );
        return rope(noise(4, seed), table, attrs);
      };
      return at(p, 1).reduce((sum, value, i) => sum + value * at(q, 2)[i]!, 0);
    };
    expect(dotAt(9, 4)).toBeCloseTo(dotAt(5, 0), 5);
  });
});

describe('gated_act', () => {
  const gate = Float32Array.of(-3, -0.5, 0, 0.5, 3);
  const up = Float32Array.of(1, 2, 3, 4, 5);
  it('knows silu', () =>
    expectClose(gatedAct(gate, up, 0), [-0.142278, -0.377541, 0, 1.244919, 14.288612], 1e-5));
  it('knows gelu by erf', () =>
    expectClose(gatedAct(gate, up, 1), [-0.00405, -0.308538, 0, 1.382925, 14.97975], 1e-5));
  it('knows gelu by tanh', () =>
    expectClose(gatedAct(gate, up, 2), [-0.003637, -0.308572, 0, 1.382856, 14.981814], 1e-5));
  it('has an exact erf', () => {
    // From tables; the two branches meet at 2.5.
    expectClose([0, 0.5, 1, 2, 2.49, 2.51, 3, -1].map(erf), [0, 0.5204998778130465, 0.8427007929497149, 0.9953222650189527, 0.9995707020, 0.9996142831, 0.9999779095030014, -0.8427007929497149], 3e-8); // prettier-ignore
    expect(erf(2.4999999999) - erf(2.5)).toBeCloseTo(0, 12);
  });
});

it('gather_rows picks rows in the order asked for', () => {
  const x = { columns: 2, data: Float32Array.of(1, 2, 3, 4, 5, 6) };
  expect(Array.from(gatherRows(x, Int32Array.of(2, 0, 2)))).toEqual([5, 6, 1, 2, 5, 6]);
});

describe('attention', () => {
  const shape = { layer: 0, numHeads: 4, numKvHeads: 2, headDim: 3 };
  const blockTables = [Int32Array.of(2, 0), Int32Array.of(3, 1)];
  const lengths = [5, 3];
  const blockSize = 4;
  /** Two sequences of 5 and 3 tokens in scattered blocks; all their tokens are queries, and one row is padding. */
  const seqs = Int32Array.of(0, 0, 0, 0, 0, 1, 1, 1, -1);
  const positions = Int32Array.of(0, 1, 2, 3, 4, 0, 1, 2, 0);
  const step = {
    numTokens: 9,
    ints: () => positions,
    tokenSeqs: () => seqs,
    blockTable: (seq: number) => blockTables[seq]!,
  } as unknown as StepReader;
  const k = noise(9 * 6, 4);
  const v = noise(9 * 6, 5);
  const q = noise(9 * 12, 6);
  const kv = new ReferenceKvCache([{ numKvHeads: 2, headDim: 3, dtype: 'f32' }], { numBlocks: 4, blockSize });
  const slots = Int32Array.from(seqs, (seq, t) =>
    seq < 0
      ? -1
      : blockTables[seq]![Math.floor(positions[t]! / blockSize)]! * blockSize + (positions[t]! % blockSize),
  );
  kv.write(0, k, v, slots);

  /** The definition over plain lists, without a cache. */
  function direct(slidingWindow: number, softCap: number): number[] {
    return Array.from({ length: 9 * 12 }, (_, i) => {
      const [t, head, d] = [Math.floor(i / 12), Math.floor((i % 12) / 3), i % 3];
      if (seqs[t]! < 0) return 0;
      const kvHead = head < 2 ? 0 : 1;
      const base = seqs[t] === 0 ? 0 : lengths[0]!;
      const visible = Array.from({ length: positions[t]! + 1 }, (_v, j) => j).filter(
        (j) => slidingWindow === 0 || j > positions[t]! - slidingWindow,
      );
      const weights = visible.map((j) => {
        const dot = [0, 1, 2].reduce(
          (sum, e) => sum + q[t * 12 + head * 3 + e]! * k[(base + j) * 6 + kvHead * 3 + e]!,
          0,
        );
        return Math.exp(softCap > 0 ? softCap * Math.tanh((2 * dot) / softCap) : 2 * dot);
      });
      const total = weights.reduce((a, b) => a + b, 0);
      return visible.reduce(
        (sum, j, n) => sum + (weights[n]! / total) * v[(base + j) * 6 + kvHead * 3 + d]!,
        0,
      );
    });
  }

  it.each([
    ['causal with grouped queries', 0, 0],
    ['within a sliding window', 2, 0],
    ['soft-capped', 0, 0.7],
  ])('is %s', (_, slidingWindow, softCap) => {
    const y = attention(q, { ...shape, scale: 2, slidingWindow, softCap }, step, kv);
    expectClose(y, direct(slidingWindow, softCap), 1e-6);
  });

  it('rounds what it stores to the type of the cache', () => {
    const rounded = new ReferenceKvCache([{ numKvHeads: 1, headDim: 1, dtype: 'bf16' }], {
      numBlocks: 1,
      blockSize: 16,
    });
    rounded.write(0, Float32Array.of(1.001), Float32Array.of(2.7111), Int32Array.of(5));
    const { k: key, v: value } = rounded.read(0, 0, Int32Array.of(0), 5);
    expect([key[0], value[0]]).toEqual([1, 2.71875]);
  });
});
