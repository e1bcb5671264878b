/**
 * The fusion pass: replaces runs of ops by the fused ops of the table, where `accepts` says that the backend has a kernel.
 * - q, k, v projections, per-head norms, rotation and cache write → one `linear` and `qkv_rope_kv_write`
 * - gate and up projections and their product → `linear_gated`
 * - a projection added to the residual stream → `linear_add`
 * A pattern matches only where nothing else reads what it would swallow. Weights that are read together become one weight of
 * several parts. Results that stay visible keep their value numbers.
 */
import { Graph, type Rewrite } from './graph.js';
import { signatureOf, type OpSignature } from './signature.js';
import type { Program, ProgramOp } from './program.js';

export type Accepts = (signature: OpSignature) => boolean;

type Pattern = (graph: Graph, op: ProgramOp, accepts: Accepts) => Rewrite | undefined;

export function fuse(program: Program, accepts: Accepts): Program {
  const graph = new Graph(program);
  for (const pattern of [fuseQkv, fuseGated, fuseAdd]) {
    for (const op of graph.ops) {
      if (!graph.ops.includes(op)) continue;
      const rewrite = pattern(graph, op, accepts);
      if (rewrite !== undefined) graph.apply(rewrite);
    }
  }
  return graph.toProgram();
}

/** A projected, perhaps normed, rotated value: rope(rms_norm?(linear(x))), nothing of it read elsewhere. */
interface RotatedProjection {
  readonly linear: ProgramOp;
  readonly norm: ProgramOp | undefined;
  readonly rope: ProgramOp;
}

function rotatedProjection(graph: Graph, rope: ProgramOp | undefined): RotatedProjection | undefined {
  if (rope?.op !== 'rope') return undefined;
  const source = graph.soleProducer(rope.inputs[0]!);
  const norm = source?.op === 'rms_norm' && source.attrs.size === rope.attrs.headDim ? source : undefined;
  const linear = norm === undefined ? source : graph.soleProducer(norm.inputs[0]!);
  return linear?.op === 'linear' ? { linear, norm, rope } : undefined;
}

/** The rotated q of the attention that reads this write, if it is read by nothing else. */
function queryOf(graph: Graph, kvWrite: ProgramOp): RotatedProjection | undefined {
  const readers = graph.usersOf(kvWrite.outputs[0]!).filter((op) => op.op === 'attention');
  const attention = readers.find((op) => op.attrs.layer === kvWrite.attrs.layer);
  if (attention === undefined || readers.length !== 1) return undefined;
  return rotatedProjection(graph, graph.soleProducer(attention.inputs[0]!));
}

const fuseQkv: Pattern = (graph, kvWrite, accepts) => {
  if (kvWrite.op !== 'kv_write') return undefined;
  const [kValue, vValue, slotMapping, kvIn] = kvWrite.inputs as [number, number, number, number];
  const k = rotatedProjection(graph, graph.soleProducer(kValue));
  const v = graph.soleProducer(vValue);
  const q = queryOf(graph, kvWrite);
  if (k === undefined || q === undefined || v?.op !== 'linear') return undefined;
  if (!sameRotation(q, k) || !sameNorm(q, k)) return undefined;
  const fusedOp: ProgramOp = {
    op: 'qkv_rope_kv_write',
    inputs: [q.linear.outputs[0]!, q.rope.inputs[1]!, normWeight(q), normWeight(k), slotMapping, kvIn],
    outputs: [q.rope.outputs[0]!, kvWrite.outputs[0]!],
    attrs: {
      layer: kvWrite.attrs.layer!,
      numHeads: q.rope.attrs.numHeads!,
      numKvHeads: kvWrite.attrs.numKvHeads!,
      headDim: kvWrite.attrs.headDim!,
      rotaryDim: q.rope.attrs.rotaryDim!,
      interleaved: q.rope.attrs.interleaved!,
      eps: q.norm?.attrs.eps ?? 0,
    },
  };
  if (!accepts(signatureOf(graph, fusedOp))) return undefined;
  const linear = graph.joinLinears([q.linear, k.linear, v]);
  if (linear === undefined) return undefined;
  const swallowed = [q.linear, q.norm, q.rope, k.linear, k.norm, k.rope, v, kvWrite];
  return {
    removed: swallowed.filter((op) => op !== undefined),
    added: [linear, { ...fusedOp, inputs: [linear.outputs[0]!, ...fusedOp.inputs.slice(1)] }],
  };
};

function sameRotation(q: RotatedProjection, k: RotatedProjection): boolean {
  const same = (['headDim', 'rotaryDim', 'interleaved'] as const).every(
    (name) => q.rope.attrs[name] === k.rope.attrs[name],
  );
  return same && q.rope.inputs[1] === k.rope.inputs[1];
}

function sameNorm(q: RotatedProjection, k: RotatedProjection): boolean {
  return (q.norm === undefined) === (k.norm === undefined) && q.norm?.attrs.eps === k.norm?.attrs.eps;
}

const normWeight = ({ norm }: RotatedProjection): number => norm?.inputs[1] ?? -1;

const fuseGated: Pattern = (graph, gatedAct, accepts) => {
  if (gatedAct.op !== 'gated_act') return undefined;
  const [gate, up] = gatedAct.inputs.map((value) => graph.soleProducer(value));
  if (gate?.op !== 'linear' || up?.op !== 'linear') return undefined;
  const fusedOp: ProgramOp = {
    op: 'linear_gated',
    inputs: gate.inputs,
    outputs: gatedAct.outputs,
    attrs: gatedAct.attrs,
  };
  if (!accepts(signatureOf(graph, fusedOp))) return undefined;
  const joined = graph.joinLinears([gate, up]);
  return joined && { removed: [gate, up, gatedAct], added: [{ ...fusedOp, inputs: joined.inputs }] };
};

const fuseAdd: Pattern = (graph, add, accepts) => {
  if (add.op !== 'add') return undefined;
  for (const [value, residual] of [add.inputs.toReversed(), add.inputs] as [number, number][]) {
    const linear = graph.soleProducer(value);
    if (linear?.op !== 'linear' || value === residual || graph.values[residual]!.dtype !== 'f32') continue;
    const [x, weight, bias] = linear.inputs as [number, number, number];
    const fusedOp: ProgramOp = {
      op: 'linear_add',
      inputs: [x, weight, residual, bias],
      outputs: add.outputs,
      attrs: {},
    };
    if (accepts(signatureOf(graph, fusedOp))) return { removed: [linear, add], added: [fusedOp] };
  }
  return undefined;
};
