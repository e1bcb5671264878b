/** The definition of each op in plain float32 loops. Fused ops are compositions of the unfused. */
import type { OpName } from '../../backend/index.js';
import { invariant } from '../../errors.js';
import { attention } from './attention.js';
import { allGather, allReduce, reduceScatter } from './collective.js';
import { add, embedding, gatedAct, gatherRows } from './elementwise.js';
import { linear } from './linear.js';
import { rmsNorm } from './rms-norm.js';
import { rope, ropeCosSin } from './rope.js';
import type { ReferenceKvCache } from './kv-cache.js';
import type { StepReader } from './step-reader.js';

/** Numbers of rows and columns ([] and vectors: 1 row), with row-major data. */
export interface ReferenceTensor {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array | Int32Array;
}

/** What an op's reference sees. Floats are exact f32 images of their type; the caller rounds the outputs to theirs. */
export interface ReferenceContext {
  /** A float operand by name. */
  floats(name: string): ReferenceTensor & { readonly data: Float32Array };
  ints(name: string): Int32Array;
  has(name: string): boolean;
  readonly attrs: Readonly<Record<string, number>>;
  readonly step: StepReader;
  readonly kv: ReferenceKvCache;
  /** Samples logits [rows, V] for the current tile of logit rows. */
  readonly sample: (logits: Float32Array, vocabSize: number) => Int32Array;
  /** The last token sampled for a sequence of the step. */
  readonly lastToken: (seq: number) => number;
}

/** Returns the outputs' data; nothing for a state. */
export type OpReference = (context: ReferenceContext) => readonly (Float32Array | Int32Array | undefined)[];

const linearOf = (context: ReferenceContext): Float32Array =>
  linear(
    context.floats('x'),
    context.floats('weight'),
    context.has('bias') ? context.floats('bias').data : undefined,
  );

export type OpReferences = Readonly<Record<OpName, OpReference>>;

export const opReferences: OpReferences = {
  embedding: (context) => [embedding(resolveTokens(context), context.floats('weight'))],
  rms_norm: ({ floats, attrs }) => [
    rmsNorm(floats('x').data, floats('weight').data, attrs.size!, attrs.eps!),
  ],
  linear: (context) => [linearOf(context)],
  add: ({ floats }) => [add(floats('a').data, floats('b').data)],
  rope_cos_sin: ({ ints, floats, attrs, step }) => [
    ropeCosSin(ints('positions'), floats('invFreq').data, attrs, step),
  ],
  rope: ({ floats, attrs }) => [rope(floats('x').data, floats('cosSin').data, attrs)],
  kv_write: ({ floats, ints, attrs, kv }) => {
    kv.write(attrs.layer!, floats('k').data, floats('v').data, ints('slotMapping'));
    return [undefined];
  },
  attention: ({ floats, attrs, step, kv }) => [attention(floats('q').data, attrs, step, kv)],
  gated_act: ({ floats, attrs }) => [gatedAct(floats('gate').data, floats('up').data, attrs.activation!)],
  gather_rows: ({ floats, ints }) => [gatherRows(floats('x'), ints('rows'))],
  sample: ({ floats, sample }) => [sample(floats('logits').data, floats('logits').columns)],

  linear_add: (context) => [add(context.floats('residual').data, linearOf(context))],

  linear_gated: (context) => {
    const both = {
      rows: context.floats('x').rows,
      columns: context.floats('weight').rows,
      data: linearOf(context),
    };
    const half = both.columns / 2;
    const gate = takeColumns(both, 0, half);
    return [gatedAct(gate, takeColumns(both, half, both.columns), context.attrs.activation!)];
  },

  qkv_rope_kv_write: (context) => {
    const { attrs, kv } = context;
    const qkv = context.floats('qkv');
    const qSize = attrs.numHeads! * attrs.headDim!;
    const kvSize = attrs.numKvHeads! * attrs.headDim!;
    const q = rotateHeads(context, takeColumns(qkv, 0, qSize), 'qNorm', attrs.numHeads!);
    const k = rotateHeads(context, takeColumns(qkv, qSize, qSize + kvSize), 'kNorm', attrs.numKvHeads!);
    const v = takeColumns(qkv, qSize + kvSize, qkv.columns);
    kv.write(attrs.layer!, k, v, context.ints('slotMapping'));
    return [q, undefined];
  },

  // One rank alone; collective.ts has the definitions for several.
  all_reduce: ({ floats }) => [allReduce([floats('x').data])],
  all_gather: ({ floats, attrs }) => [allGather(alone(floats('x').data, attrs), floats('x').rows)],
  reduce_scatter: ({ floats, attrs }) => [reduceScatter(alone(floats('x').data, attrs), floats('x').rows, 0)],
};

/** The values of a group of one rank. */
function alone(x: Float32Array, { size }: ReferenceContext['attrs']): Float32Array[] {
  invariant(size === 1, `the reference of one rank runs a collective of ${size}`);
  return [x];
}

/** Norm, where a weight is given, then rotation. */
function rotateHeads(
  context: ReferenceContext,
  x: Float32Array,
  norm: string,
  numHeads: number,
): Float32Array {
  const { attrs } = context;
  const normed = context.has(norm) ? rmsNorm(x, context.floats(norm).data, attrs.headDim!, attrs.eps!) : x;
  return rope(normed, context.floats('cosSin').data, { ...attrs, numHeads });
}

/** Columns [begin, end) of every row. */
function takeColumns(
  { rows, columns, data }: ReferenceTensor & { data: Float32Array },
  begin: number,
  end: number,
): Float32Array {
  const taken = new Float32Array(rows * (end - begin));
  for (let r = 0; r < rows; r++)
    taken.set(data.subarray(r * columns + begin, r * columns + end), r * (end - begin));
  return taken;
}

/** The step's token ids, with -1 replaced by the last token sampled for its sequence. Padding stays 0. */
function resolveTokens({ ints, step, lastToken }: ReferenceContext): Int32Array {
  const seqs = step.tokenSeqs();
  return ints('tokenIds').map((token, t) => (token >= 0 ? token : seqs[t]! < 0 ? 0 : lastToken(seqs[t]!)));
}
