/** What `tenon explain` prints: the plan's ops, the kernels that run them, their bytes, and what was declined and why. */
import { alignColumns } from '../align-columns.js';
import {
  dtypeBytes,
  ops,
  weightSchemes,
  type Plan,
  type PlanOp,
  type PlanTensor,
  type PlanWeight,
} from '../backend/index.js';
import type { PlanNegotiation } from './build-plan.js';
import { formatType } from './program.js';

/** Ops that are the same in all but layer and weights, in the order of their first one. */
export interface ExplainRow {
  readonly count: number;
  readonly op: string;
  readonly kernel: string;
  /** `f32[T, 64] → bf16[T, 64]`: operands without step inputs and state, then results. */
  readonly shapes: string;
  /** Weight bytes of all `count` ops together. */
  readonly weightBytes: number;
  readonly reason: string | undefined;
}

export interface PlanBytes {
  readonly weights: number;
  /** Weight bytes that a step of one token reads. */
  readonly weightsReadPerStep: number;
  readonly arena: number;
  /** Keys and values of one token in all layers, without the layout's padding. */
  readonly kvPerToken: number;
}

export const numElements = ({ shape }: PlanWeight): number =>
  shape.reduce((product, dim) => product * dim, 1);

/** Bytes of a weight as the plan holds it, without the layout's padding. */
export function weightBytes(weight: PlanWeight): number {
  if (weight.scheme === undefined) return numElements(weight) * dtypeBytes[weight.dtype];
  const { bits, groupSize, hasMin } = weightSchemes[weight.scheme];
  const bytesOfGroup = (groupSize * bits) / 8 + dtypeBytes.f16 * (hasMin ? 2 : 1);
  return (numElements(weight) / groupSize) * bytesOfGroup;
}

export function planBytes(plan: Plan): PlanBytes {
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, value) => total + value, 0);
  return {
    weights: sum(plan.weights.map(weightBytes)),
    weightsReadPerStep: sum(plan.weights.map(bytesReadPerStep)),
    arena: plan.arenaBytes,
    kvPerToken: sum(plan.kvLayers.map((kv) => 2 * kv.numKvHeads * kv.headDim * dtypeBytes[kv.dtype])),
  };
}

/** All of it, but of an embedding table that nothing else reads only one row. */
function bytesReadPerStep(weight: PlanWeight): number {
  const lookupOnly = weight.uses.every((use) => use === 'embedding');
  return lookupOnly ? weightBytes(weight) / weight.shape[0]! : weightBytes(weight);
}

export function explainRows(plan: Plan, negotiation: PlanNegotiation): ExplainRow[] {
  const rows = new Map<string, ExplainRow>();
  plan.ops.forEach((op, i) => {
    const { kernel, reason } = negotiation.answers[i]!;
    const shapes = describeShapes(plan, op);
    const key = JSON.stringify([op.op, kernel, shapes, reason]);
    const known = rows.get(key);
    rows.set(key, {
      count: (known?.count ?? 0) + 1,
      op: `${op.op}@${ops[op.op].version}`,
      kernel,
      shapes,
      weightBytes: (known?.weightBytes ?? 0) + weightBytesOf(plan, op),
      reason,
    });
  });
  return [...rows.values()];
}

function describeShapes({ tensors, weights }: Plan, op: PlanOp): string {
  const describe = (tensor: PlanTensor): string =>
    formatType(tensor, tensor.kind === 'weight' ? weights[tensor.weight]!.scheme : undefined);
  const shown = (ids: readonly number[]): string =>
    ids
      .map((id) => tensors[id])
      .filter((tensor) => tensor !== undefined && tensor.kind !== 'input' && tensor.kind !== 'state')
      .map((tensor) => describe(tensor!))
      .join(' ');
  return [shown(op.inputs), shown(op.outputs)].filter((side) => side !== '').join(' → ');
}

function weightBytesOf({ tensors, weights }: Plan, op: PlanOp): number {
  const read = op.inputs.map((id) => tensors[id]).filter((tensor) => tensor?.kind === 'weight');
  return read.reduce(
    (sum, tensor) => sum + weightBytes(weights[(tensor as PlanTensor & { kind: 'weight' }).weight]!),
    0,
  );
}

/** The plan as text. */
export function explain(plan: Plan, negotiation: PlanNegotiation): string {
  const rows = explainRows(plan, negotiation);
  const table = [
    ['', 'op', 'kernel', 'shapes', 'weights', ''],
    ...rows.map((row) => [
      `${row.count}×`, row.op, row.kernel, row.shapes, row.weightBytes > 0 ? formatBytes(row.weightBytes) : '', row.reason ?? '',
    ]),
  ]; // prettier-ignore
  return [...alignColumns(table), '', ...summary(plan, negotiation)].join('\n');
}

function summary(plan: Plan, { declined, unpacked, batchInvariant }: PlanNegotiation): string[] {
  const bytes = planBytes(plan);
  const { limits } = plan;
  const tile = plan.segments.find((segment) => segment.tile !== undefined)?.tile;
  return [
    `weights    ${formatBytes(bytes.weights)} in ${plan.weights.length} tensors (${heldAs(plan)}); one decode step reads ${formatBytes(bytes.weightsReadPerStep)}`,
    `arena      ${formatBytes(bytes.arena)} for steps of up to ${limits.maxTokens} tokens${tile ? `, logits in tiles of ${tile} rows` : ''}`,
    `KV cache   ${formatBytes(bytes.kvPerToken)} per token in ${plan.kvLayers.length} layers; blocks of ${limits.blockSize} tokens`,
    `results    ${batchInvariant ? 'do not depend on the batch' : 'may depend on the batch'}`,
    ...declined.map(({ op, reason }) => `not fused  ${op}: ${reason}`),
    ...unpacked.map(({ scheme, op, reason }) => `unpacked   weights in ${scheme}, for ${op}: ${reason}`),
  ];
}

/** What the matrices are held as, most bytes first: `int4:g32:min 85 %, bf16 15 %`. */
function heldAs({ weights }: Plan): string {
  const bytes = new Map<string, number>();
  for (const weight of weights) {
    const held = weight.scheme ?? weight.dtype;
    bytes.set(held, (bytes.get(held) ?? 0) + weightBytes(weight));
  }
  const total = [...bytes.values()].reduce((sum, value) => sum + value, 0);
  const share = (value: number): string =>
    value === total ? '' : ` ${((100 * value) / total).toPrecision(2)} %`;
  return [...bytes]
    .toSorted(([, a], [, b]) => b - a)
    .map(([held, value]) => `${held}${share(value)}`)
    .join(', ');
}

/** 1536 → `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}
