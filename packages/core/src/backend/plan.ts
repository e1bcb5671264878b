/**
 * The linear plan: what core decides and a backend executes, in order, with no policy of its own.
 * `encodePlan` turns it into the words that the C++ executor (`tenon/plan.h`) reads.
 */
import { dtypes, type CheckpointDtype, type Dtype } from './dtype.js';
import { ops, opNames, type OpName } from './ops.js';
import type { WeightScheme } from './weight-scheme.js';

/** Symbolic dimensions. T: tokens of the step, S: its sequences, L: its logit rows. */
export const symbols = ['T', 'S', 'L'] as const;
export type SymbolicDim = (typeof symbols)[number];
export type Dim = number | SymbolicDim;

/** Step regions that a Program may name as inputs. */
export const stepInputs = ['tokenIds', 'positions', 'slotMapping', 'logitRows'] as const;
export type StepInput = (typeof stepInputs)[number];

/** How weights are read by the ops that use them; a weight may be used both ways (tied embeddings) and is held once. */
export const weightUses = ['linear', 'linear_gated', 'embedding', 'vector'] as const;
export type WeightUse = (typeof weightUses)[number];

export interface PlanWeight {
  readonly name: string;
  /** Checkpoint tensors, concatenated along dimension 0. Empty for a constant. */
  readonly parts: readonly string[];
  /** [N, K] of a matrix, [N] of a vector. */
  readonly shape: readonly number[];
  /** The type to hold it in (`checkpoint` values are converted with round to nearest even), and that of what it is multiplied by. */
  readonly dtype: Dtype;
  /** A quantized matrix that is held as grouped integers instead; all of its parts are in formats that fit into the scheme. */
  readonly scheme?: WeightScheme;
  readonly uses: readonly WeightUse[];
  /** Values of a constant made by core (rotary frequencies). */
  readonly data?: Float32Array;
}

export type PlanTensor =
  | { readonly kind: 'weight'; readonly dtype: Dtype; readonly dims: readonly Dim[]; readonly weight: number }
  | {
      readonly kind: 'input';
      readonly dtype: Dtype;
      readonly dims: readonly Dim[];
      readonly input: StepInput;
    }
  /** Lives in the workspace arena at `offset` bytes; its rows are counted by its first dimension. */
  | { readonly kind: 'buffer'; readonly dtype: Dtype; readonly dims: readonly Dim[]; readonly offset: number }
  | { readonly kind: 'state'; readonly dtype: 'state'; readonly dims: readonly Dim[] }
  /** Written to the step's result. */
  | { readonly kind: 'output'; readonly dtype: Dtype; readonly dims: readonly Dim[] };
export const tensorKinds = ['weight', 'input', 'buffer', 'state', 'output'] as const;

export interface PlanOp {
  readonly op: OpName;
  /** Tensor numbers in the table's operand order; -1 for an absent optional operand. */
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  readonly attrs: Readonly<Record<string, number>>;
}

/**
 * A run of ops. With `tile`, the segment is run once per `tile` logit rows: L is then the rows of the tile, and
 * `logitRows` and the outputs start at the tile's first row. So logits never need more than `tile` rows of memory.
 */
export interface PlanSegment {
  readonly firstOp: number;
  readonly numOps: number;
  readonly tile?: number;
}

/** One KV-cache layer. K and V hold numKvHeads * headDim elements per token each; the backend chooses the layout. */
export interface PlanKvLayer {
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly dtype: Dtype;
}

export interface PlanLimits {
  readonly maxTokens: number;
  readonly maxSeqs: number;
  readonly maxLogitRows: number;
  readonly maxModelLen: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly vocabSize: number;
}

export interface Plan {
  readonly weights: readonly PlanWeight[];
  readonly tensors: readonly PlanTensor[];
  readonly ops: readonly PlanOp[];
  readonly segments: readonly PlanSegment[];
  readonly kvLayers: readonly PlanKvLayer[];
  readonly limits: PlanLimits;
  /** Bytes of the workspace arena that holds every buffer. */
  readonly arenaBytes: number;
}

export const planMagic = 0x4e4c5054; // 'TPLN'
export const planVersion = 1;
export const planHeaderWords = 20;
export const planTensorWords = 9;

/**
 * Words of an encoded plan, all little-endian int32:
 * header [planHeaderWords]: magic, version, numWeights, numTensors, numOps, numSegments, numKvLayers, arenaBytes lo, hi,
 *   maxTokens, maxSeqs, maxLogitRows, maxModelLen, blockSize, numBlocks, vocabSize, 4 reserved;
 * tensors [numTensors][planTensorWords]: kind, dtype, rank, dim0..dim2 (≥ 0, or -1 - symbol), argument lo, hi
 *   (weight number, step input number or arena offset), 0;
 * kv layers [numKvLayers][3]: numKvHeads, headDim, dtype;
 * segments [numSegments][3]: firstOp, numOps, tile (0: whole);
 * ops, each: op number, version, numInputs, numOutputs, numAttrs, inputs…, outputs…, attributes… (float bits for `f`).
 * Weights travel beside it as plain objects (`PlanWeight` with resolved locations, see contract.ts).
 */
export function encodePlan(plan: Plan): Int32Array {
  const words: number[] = [];
  const { limits } = plan;
  const wide = (value: number) => words.push(value >>> 0, Math.floor(value / 2 ** 32));
  words.push(planMagic, planVersion, plan.weights.length, plan.tensors.length, plan.ops.length);
  words.push(plan.segments.length, plan.kvLayers.length);
  wide(plan.arenaBytes);
  words.push(limits.maxTokens, limits.maxSeqs, limits.maxLogitRows, limits.maxModelLen);
  words.push(limits.blockSize, limits.numBlocks, limits.vocabSize, 0, 0, 0, 0);
  for (const tensor of plan.tensors) encodeTensor(tensor, words, wide);
  for (const kv of plan.kvLayers) words.push(kv.numKvHeads, kv.headDim, dtypes.indexOf(kv.dtype));
  for (const segment of plan.segments) words.push(segment.firstOp, segment.numOps, segment.tile ?? 0);
  for (const op of plan.ops) encodeOp(op, words);
  return Int32Array.from(words, (word) => word | 0);
}

function encodeTensor(tensor: PlanTensor, words: number[], wide: (value: number) => void): void {
  words.push(tensorKinds.indexOf(tensor.kind), dtypes.indexOf(tensor.dtype), tensor.dims.length);
  for (let i = 0; i < 3; i++) {
    const dim = tensor.dims[i] ?? 1;
    words.push(typeof dim === 'number' ? dim : -1 - symbols.indexOf(dim));
  }
  if (tensor.kind === 'weight') wide(tensor.weight);
  else if (tensor.kind === 'input') wide(stepInputs.indexOf(tensor.input));
  else wide(tensor.kind === 'buffer' ? tensor.offset : 0);
  words.push(0);
}

const floatBits = new Float32Array(1);
const intBits = new Int32Array(floatBits.buffer);

function encodeOp(planOp: PlanOp, words: number[]): void {
  const spec = ops[planOp.op];
  const attrs = Object.entries(spec.attrs);
  words.push(
    opNames.indexOf(planOp.op),
    spec.version,
    planOp.inputs.length,
    planOp.outputs.length,
    attrs.length,
  );
  words.push(...planOp.inputs, ...planOp.outputs);
  for (const [name, type] of attrs) {
    const value = planOp.attrs[name] ?? 0;
    if (type === 'f') {
      floatBits[0] = value;
      words.push(intBits[0]!);
    } else words.push(value);
  }
}

/** A checkpoint tensor on disk. Backends map the file; nothing is copied through JavaScript. */
export interface TensorLocation {
  readonly name: string;
  readonly file: string;
  readonly offset: number;
  readonly sizeBytes: number;
  readonly dtype: CheckpointDtype;
  /** Row-major, outermost dimension first. */
  readonly shape: readonly number[];
}
