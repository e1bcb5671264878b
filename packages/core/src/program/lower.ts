/** From a Program to the Plan that a backend runs: tensors, places in the arena, segments. */
import {
  dtypeBytes, ops, type Plan, type PlanLimits, type PlanOp, type PlanSegment, type PlanTensor, type PlanWeight, type WeightUse,
} from '../backend/index.js'; // prettier-ignore
import { invariant } from '../errors.js';
import { padSeqCount, padTokenCount } from './bucketing.js';
import { planMemory, type BufferLifetime } from './memory-plan.js';
import type { Program, ProgramOp, ProgramValue } from './program.js';
import { hasLogitRows, verify } from './verify.js';

/** Logit rows that the head computes at a time: few enough for small logits, enough to be bound by compute. */
const defaultTile = 64;

export interface LowerOptions {
  /** Token counts that a step may have, ascending; empty: any. */
  readonly tokenBuckets?: readonly number[];
  /** Numbers of sequences that a step of single tokens may have, ascending; empty: any. */
  readonly decodeBuckets?: readonly number[];
  readonly tile?: number;
}

/** The plan of a program. Only what its ops use is in it: weights that fusion has joined are gone. */
export function lower(program: Program, limits: PlanLimits, options: LowerOptions = {}): Plan {
  verify(program);
  const planLimits = padLimits(limits, options);
  const tile = Math.min(options.tile ?? defaultTile, planLimits.maxLogitRows);
  const numbering = numberTensors(program);
  const { weights, weightNumbers } = collectWeights(program, numbering.order);
  const segments = splitSegments(program, tile);
  const { offsets, arenaBytes } = placeBuffers(program, segments, planLimits, tile);
  const tensors = numbering.order.map((id) => toTensor(program, id, weightNumbers, offsets));
  return {
    weights,
    tensors,
    ops: program.ops.map((op) => toPlanOp(op, numbering.numberOf)),
    segments,
    kvLayers: program.kvLayers,
    limits: planLimits,
    arenaBytes,
  };
}

/** Padding counts too. */
function padLimits(limits: PlanLimits, { tokenBuckets = [], decodeBuckets = [] }: LowerOptions): PlanLimits {
  const maxTokens = padTokenCount(limits.maxTokens, tokenBuckets);
  if (decodeBuckets.length === 0) return { ...limits, maxTokens };
  const maxSeqs = padSeqCount(limits.maxSeqs, decodeBuckets);
  return {
    ...limits,
    maxSeqs,
    maxTokens: Math.max(maxTokens, maxSeqs),
    maxLogitRows: Math.max(limits.maxLogitRows, maxSeqs),
  };
}

/** Values in the order of first use. All states of the cache are one tensor: kernels write it in place. */
function numberTensors({ values, ops: programOps }: Program): {
  order: number[];
  numberOf: Map<number, number>;
} {
  const order: number[] = [];
  const numberOf = new Map<number, number>();
  let state: number | undefined;
  for (const id of programOps.flatMap((op) => [...op.inputs, ...op.outputs])) {
    if (id < 0 || numberOf.has(id)) continue;
    if (values[id]!.dtype === 'state' && state !== undefined) {
      numberOf.set(id, state);
      continue;
    }
    const number = order.push(id) - 1;
    numberOf.set(id, number);
    if (values[id]!.dtype === 'state') state = number;
  }
  return { order, numberOf };
}

function toPlanOp(op: ProgramOp, numberOf: ReadonlyMap<number, number>): PlanOp {
  const number = (id: number): number => (id < 0 ? -1 : numberOf.get(id)!);
  return { op: op.op, inputs: op.inputs.map(number), outputs: op.outputs.map(number), attrs: op.attrs };
}

function toTensor(
  { values, outputs }: Program,
  id: number,
  weightNumbers: ReadonlyMap<number, number>,
  offsets: ReadonlyMap<number, number>,
): PlanTensor {
  const value = values[id]!;
  const { dims, dtype } = value;
  if (dtype === 'state') return { kind: 'state', dtype, dims };
  if (value.kind === 'weight')
    return { kind: 'weight', dtype, dims, weight: weightNumbers.get(value.weight)! };
  if (value.kind === 'input') return { kind: 'input', dtype, dims, input: value.input };
  if (outputs.includes(id)) return { kind: 'output', dtype, dims };
  return { kind: 'buffer', dtype, dims, offset: offsets.get(id)! };
}

/** The weights that ops read, with the ways in which they are read. */
function collectWeights(
  program: Program,
  order: readonly number[],
): { weights: PlanWeight[]; weightNumbers: Map<number, number> } {
  const uses = weightUsesOf(program);
  const weights: PlanWeight[] = [];
  const weightNumbers = new Map<number, number>();
  for (const id of order) {
    const value = program.values[id]!;
    if (value.kind !== 'weight') continue;
    const number = weights.push({ ...program.weights[value.weight]!, uses: [...uses.get(id)!] }) - 1;
    weightNumbers.set(value.weight, number);
  }
  return { weights, weightNumbers };
}

function weightUsesOf({ values, ops: programOps }: Program): Map<number, Set<WeightUse>> {
  const uses = new Map<number, Set<WeightUse>>();
  for (const op of programOps) {
    op.inputs.forEach((id, i) => {
      if (values[id]?.kind !== 'weight') return;
      const known = uses.get(id) ?? new Set<WeightUse>();
      uses.set(id, known.add(weightUse(op, ops[op.op].inputs[i]!)));
    });
  }
  return uses;
}

function weightUse(op: ProgramOp, operand: string): WeightUse {
  if (operand !== 'weight') return 'vector';
  if (op.op === 'embedding' || op.op === 'linear_gated') return op.op;
  return op.op === 'linear' || op.op === 'linear_add' ? 'linear' : 'vector';
}

/** What works on tokens, then what works on logit rows, in tiles. */
function splitSegments({ values, ops: programOps }: Program, tile: number): PlanSegment[] {
  const firstOfHead = programOps.findIndex((op) => hasLogitRows(values, op));
  if (firstOfHead < 0) return [{ firstOp: 0, numOps: programOps.length }];
  const head = { firstOp: firstOfHead, numOps: programOps.length - firstOfHead, tile };
  return firstOfHead === 0 ? [head] : [{ firstOp: 0, numOps: firstOfHead }, head];
}

/** Offsets of all results that live in the arena, by value. */
function placeBuffers(
  program: Program,
  segments: readonly PlanSegment[],
  limits: PlanLimits,
  tile: number,
): { offsets: Map<number, number>; arenaBytes: number } {
  const lifetimes = bufferLifetimes(program, segments, (value) => bufferBytes(value, limits, tile));
  const roots = shareInPlace(program, lifetimes);
  const owners = [...new Set(roots.values())];
  const { offsets, arenaBytes } = planMemory(owners.map((id) => lifetimes.get(id)!));
  const offsetOf = new Map(owners.map((id, i) => [id, offsets[i]!]));
  return { offsets: new Map([...roots].map(([id, owner]) => [id, offsetOf.get(owner)!])), arenaBytes };
}

function bufferBytes(value: ProgramValue, limits: PlanLimits, tile: number): number {
  const rowsOf = { T: limits.maxTokens, S: limits.maxSeqs, L: tile };
  return value.dims.reduce<number>(
    (size, dim) => size * (typeof dim === 'number' ? dim : rowsOf[dim]),
    dtypeBytes[value.dtype],
  );
}

/** From the op that makes a result to its last reader; what a tiled segment reads from before lives to the end of it. */
function bufferLifetimes(
  { values, ops: programOps, outputs }: Program,
  segments: readonly PlanSegment[],
  sizeOf: (value: ProgramValue) => number,
): Map<number, BufferLifetime> {
  const lifetimes = new Map<number, BufferLifetime>();
  programOps.forEach((op, index) => {
    const segment = segments.find(({ firstOp, numOps }) => index >= firstOp && index < firstOp + numOps)!;
    for (const id of op.inputs) {
      const life = lifetimes.get(id);
      if (life === undefined) continue;
      const isRead = segment.tile !== undefined && life.first < segment.firstOp;
      lifetimes.set(id, { ...life, last: isRead ? segment.firstOp + segment.numOps - 1 : index });
    }
    for (const id of op.outputs) {
      if (values[id]!.dtype === 'state' || outputs.includes(id)) continue;
      lifetimes.set(id, { sizeBytes: sizeOf(values[id]!), first: index, last: index });
    }
  });
  return lifetimes;
}

/**
 * The buffer that each result lives in: its own, or for `linear_add` that of its residual, if nothing reads the residual
 * afterwards. Joins the lifetimes of what shares a buffer.
 */
function shareInPlace(
  { ops: programOps }: Program,
  lifetimes: Map<number, BufferLifetime>,
): Map<number, number> {
  const roots = new Map([...lifetimes.keys()].map((id) => [id, id]));
  programOps.forEach((op, index) => {
    if (op.op !== 'linear_add') return;
    const residual = op.inputs[ops.linear_add.inputs.indexOf('residual')]!;
    const [x] = op.inputs;
    const [y] = op.outputs as [number];
    const life = lifetimes.get(y);
    if (life === undefined || lifetimes.get(residual)?.last !== index || x === residual) return;
    const root = roots.get(residual)!;
    const owner = lifetimes.get(root)!;
    invariant(owner.sizeBytes === life.sizeBytes, `linear_add ${index} and its residual differ in size`);
    roots.set(y, root);
    lifetimes.set(root, { ...owner, last: Math.max(owner.last, life.last) });
  });
  return roots;
}
