/** Attention over the paged cache, and what is written to it: heads, windows, caps, blocks, and batches that grow. */
import type { Dtype, PlanLimits } from '../../../backend/index.js';
import type { Value } from '../../../program/graph-builder.js';
import type { ConformanceCase } from '../../case.js';
import { checkOp, type OpCheck, type Tolerance } from '../../check-op.js';
import type { OpProgram } from '../../op-program.js';
import type { PlainSequence } from '../../plain-step.js';
import type { Random } from '../../random.js';
import type { BlockGiver, TestSequence } from '../../test-sequences.js';
import { opCases, programDtypes } from './op-cases.js';

export interface AttentionCase {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly scale?: number;
  readonly slidingWindow?: number;
  readonly softCap?: number;
}

/** k, v [T, numKvHeads · headDim] into the cache, and the attention of q to it. */
export function recordAttention(p: OpProgram, shape: AttentionCase, dtype: Dtype, scaleOfQ = 1): Value {
  const { numHeads, numKvHeads, headDim, scale = headDim ** -0.5 } = shape;
  const layer = p.g.kvLayer({ numKvHeads, headDim });
  p.g.kvWrite(p.floats(numKvHeads * headDim), p.floats(numKvHeads * headDim), layer, { numKvHeads, headDim });
  const q = p.rows(numHeads * headDim, dtype, scaleOfQ);
  return p.g.attention(q, layer, { ...shape, scale });
}

/**
 * Weights and values in the type of the cache: a 16-bit kernel may round its weights to it. In f32, scores of a few units make
 * a weight's error some eps.
 */
export const attentionTolerance = (dtype: Dtype): Tolerance =>
  dtype === 'f32' ? { magnitude: 4, n: 64 } : { dtype, magnitude: 4, factor: 1 };

/** Prompts of several lengths together, then three steps in which each grows by one token. */
export function growingBatch(lengths: readonly number[]) {
  return (giver: BlockGiver, p: OpProgram, { maxSeqs }: PlanLimits): PlainSequence[][] => {
    const sequences = lengths.slice(0, maxSeqs).map((length) => giver.sequence(length, length + 3));
    const prompts = sequences.map((sequence) =>
      sequence.next(p.random.ints(sequence.promptLen, p.vocabSize)),
    );
    const decodes = [1, 2, 3].map(() =>
      sequences.map((sequence) => sequence.next([p.random.below(p.vocabSize)])),
    );
    return [prompts, ...decodes];
  };
}

export function attentionCases(random: Random): ConformanceCase[] {
  return [...shapeCases(random), ...blockCases(), ...longCases(), ...chunkCases(), ...exactReads()];
}

const heads = {
  '1/1': [1, 1],
  '2/2': [2, 2],
  '4/2': [4, 2],
  '6/2': [6, 2],
  '8/1': [8, 1],
  '9/3': [9, 3],
} as const;

function shapeCases(random: Random): ConformanceCase[] {
  const parameters = {
    heads: Object.keys(heads) as (keyof typeof heads)[],
    headDim: [8, 16, 32, 64, 80, 128],
    slidingWindow: [0, 1, 3, 16, 17],
    softCap: [0, 5],
    scale: ['usual', 0.3],
  } as const;
  return opCases('attention', parameters, random, (row) => {
    const [numHeads, numKvHeads] = heads[row.heads];
    const { headDim, slidingWindow, softCap, dtype } = row;
    const scale = row.scale === 'usual' ? headDim ** -0.5 : row.scale;
    const lengths = [1, 18, 33];
    return {
      record: (p) => recordAttention(p, { numHeads, numKvHeads, headDim, slidingWindow, softCap, scale }, dtype, 0.5 / scale / Math.sqrt(headDim)),
      sizes: { tokens: 52, seqs: 3, length: 36 },
      steps: growingBatch(lengths),
      tolerance: attentionTolerance(dtype),
    };
  }); // prettier-ignore
}

/** A case whose sizes depend on what the device says. */
function attentionCase(
  name: string,
  dtypes: readonly Dtype[],
  spec: (dtype: Dtype) => Omit<OpCheck, 'op' | 'dtype' | 'tolerance'> & { readonly tolerance?: Tolerance },
): ConformanceCase[] {
  return dtypes.map((dtype) => ({
    name: `L2/attention/${dtype}/${name}`,
    op: 'attention',
    run: (kit) =>
      checkOp(kit, { op: 'attention', dtype, tolerance: attentionTolerance(dtype), ...spec(dtype) }),
  }));
}

const small: AttentionCase = { numHeads: 4, numKvHeads: 2, headDim: 16 };

/** Every block size that the device says it takes, with lengths around it. */
function blockCases(): ConformanceCase[] {
  return [0, 1, 2, 3, 4].flatMap((choice) =>
    programDtypes.map((dtype): ConformanceCase => ({
      name: `L2/attention/${dtype}/block-size-${choice}`,
      op: 'attention',
      run: async (kit) => {
        const { blockSizes } = (await kit.group()).constraints;
        const blockSize = blockSizes[choice % blockSizes.length]!;
        const lengths = [blockSize - 1, blockSize, blockSize + 1].filter((length) => length > 0);
        const longest = blockSize + 5;
        await checkOp(kit, {
          op: 'attention',
          dtype,
          record: (p) => recordAttention(p, small, dtype),
          sizes: { tokens: 3 * longest, seqs: 3, length: longest, blockSize },
          steps: growingBatch(lengths),
          tolerance: attentionTolerance(dtype),
        });
      },
    })),
  );
}

/** Longer than what a kernel does in one go. */
function longCases(): ConformanceCase[] {
  const long = (headDim: number, length: number, slidingWindow: number) =>
    attentionCase(
      `length=${length},headDim=${headDim},slidingWindow=${slidingWindow}`,
      ['f32', 'bf16'],
      (dtype) => ({
        record: (p) => recordAttention(p, { numHeads: 2, numKvHeads: 1, headDim, slidingWindow }, dtype),
        sizes: { tokens: length + 2, seqs: 2, length: length + 4 },
        steps: growingBatch([length, 2]),
      }),
    );
  return [...long(16, 270, 0), ...long(8, 530, 100)];
}

/** A prompt in pieces beside sequences that grow: queries begin in the middle of blocks. */
function chunkCases(): ConformanceCase[] {
  return attentionCase('chunks', programDtypes, (dtype) => ({
    record: (p) => recordAttention(p, { ...small, slidingWindow: 21 }, dtype),
    sizes: { tokens: 40, seqs: 2, length: 60 },
    steps: (giver, p) => {
      const tokens = (count: number): number[] => p.random.ints(count, p.vocabSize);
      const sequences: TestSequence[] = [giver.sequence(50, 60), giver.sequence(9, 60)];
      const [long, short] = sequences as [TestSequence, TestSequence];
      return [
        [long.next(tokens(13)), short.next(tokens(9))],
        [short.next(tokens(1)), long.next(tokens(30))],
        [long.next(tokens(7)), short.next(tokens(1))],
        [short.next(tokens(1)), long.next(tokens(1))],
      ];
    },
  }));
}

/** With a window of one token the result is that token's value as the cache holds it, rounded to its type and no more. */
function exactReads(): ConformanceCase[] {
  return programDtypes.map((dtype): ConformanceCase => {
    const spec: OpCheck = {
      op: 'kv_write',
      dtype,
      record: (p) => recordAttention(p, { ...small, slidingWindow: 1 }, dtype),
      sizes: { tokens: 40, seqs: 2, length: 24 },
      steps: growingBatch([17, 20]),
      // its weight is 1, up to the division by itself
      tolerance: { magnitude: 'row', factor: 2 },
    };
    return { name: `L2/kv_write/${dtype}/exact`, op: 'kv_write', run: (kit) => checkOp(kit, spec) };
  });
}
