import type { ConformanceCase } from '../../case.js';
import type { Random } from '../../random.js';
import { TestSequence } from '../../test-sequences.js';
import { opCases } from './op-cases.js';

const frequencies = (rotaryDim: number, base: number): Float32Array =>
  Float32Array.from({ length: rotaryDim / 2 }, (_, i) => base ** ((-2 * i) / rotaryDim));

/** Cosines and sines of positions near and far; and with frequencies that follow the sequence's length. */
export function ropeCosSinCases(random: Random): ConformanceCase[] {
  const fixed = { rotaryDim: [2, 8, 30, 64, 128], start: [0, 1000, 131_000], scale: [1, 1.25] } as const;
  const dynamic = { rotaryDim: [4, 32, 64], start: [0, 5, 60], promptLen: [3, 40] } as const;
  return [
    ...opCases('rope_cos_sin', fixed, random, ({ rotaryDim, start, scale }) => ({
      record: (p) => {
        const invFreq = p.g.constant('inv_freq', frequencies(rotaryDim, 10_000));
        return p.g.ropeCosSin(p.g.input('positions'), invFreq, { scale });
      },
      sizes: { tokens: 1, seqs: 1, length: start + 2, heldSeqs: 1 },
      steps: (giver, p) => {
        const { slot, blocks } = giver.sequence(1, start + 2);
        const sequence = new TestSequence(slot, blocks, 1, start);
        return [[sequence.next([p.random.below(p.vocabSize)])], [sequence.next([1])]];
      },
      // sine and cosine of an f32 angle; the last place of the result, and a few of the reduction
      tolerance: { magnitude: scale },
    }), ['f32']), // prettier-ignore
    ...opCases('rope_cos_sin', dynamic, random, ({ rotaryDim, start, promptLen }) => ({
      record: (p) => {
        const invFreq = p.g.constant('inv_freq', frequencies(rotaryDim, 10_000));
        const options = { scale: 1, dynamic: { base: 10_000, factor: 2, originalMaxPosition: 16 } };
        return p.g.ropeCosSin(p.g.input('positions'), invFreq, options);
      },
      sizes: { tokens: promptLen, seqs: 1, length: start + promptLen + 3, heldSeqs: 1 },
      steps: (giver) => {
        const { slot, blocks } = giver.sequence(promptLen, start + promptLen + 3);
        const sequence = new TestSequence(slot, blocks, promptLen, start > 0 ? start + promptLen : 0);
        if (start === 0) return [[sequence.next(Array<number>(promptLen).fill(1))]];
        return [[sequence.next([1])], [sequence.next([2])]];
      },
      // frequencies come from a power, whose rounding the angle multiplies
      tolerance: { magnitude: start + promptLen, n: 16 },
    }), ['f32']), // prettier-ignore
  ];
}

/** Heads, partly rotated ones too, in both ways of pairing elements. */
export function ropeCases(random: Random): ConformanceCase[] {
  const parameters = {
    heads: [1, 3],
    dims: ['8/8', '16/16', '64/64', '64/32', '80/20', '128/128', '34/34'],
    interleaved: [false, true],
    tokens: [1, 6],
    y: ['typed', 'f32'],
  } as const;
  return opCases('rope', parameters, random, ({ heads, dims, interleaved, tokens, y, dtype }) => {
    const [headDim, rotaryDim] = dims.split('/').map(Number) as [number, number];
    return {
      record: (p) => {
        const cosSin = p.floats(rotaryDim);
        const attrs = { numHeads: heads, headDim, rotaryDim, interleaved: interleaved ? 1 : 0 };
        return p.g.op('rope', { x: p.floats(heads * headDim), cosSin }, attrs, y === 'f32' ? 'f32' : dtype);
      },
      sizes: { tokens, seqs: 1, length: tokens },
      tolerance: { magnitude: 'row', n: 2 },
    };
  });
}
