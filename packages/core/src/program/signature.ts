/** What a backend is asked about: an op with its attributes and types, the same for all layers. */
import type { NegotiateRequest } from '../backend/index.js';
import type { ProgramOp, ProgramValue } from './program.js';

export type OpSignature = NegotiateRequest['ops'][number];

/** Types are those of the operands that are there, then of the outputs, in the op table's order. */
export function signatureOf(values: readonly ProgramValue[], op: ProgramOp): OpSignature {
  const operands = [...op.inputs.filter((id) => id >= 0), ...op.outputs];
  return { op: op.op, attrs: op.attrs, dtypes: operands.map((id) => values[id]!.dtype) };
}

/** Equal for ops that differ in nothing but their layer. */
export function signatureKey({ op, attrs, dtypes }: OpSignature): string {
  const sameInAllLayers = Object.entries(attrs).filter(([name]) => name !== 'layer');
  return JSON.stringify([op, sameInAllLayers, dtypes]);
}
