/** What a backend is asked about: an op with its attributes and types, the same for all layers. */
import type { NegotiateRequest } from '../backend/index.js';
import { ops } from '../backend/index.js';
import type { Program, ProgramOp } from './program.js';

export type OpSignature = NegotiateRequest['ops'][number];

type Values = Pick<Program, 'values' | 'weights'>;

/** Types are those of the operands that are there, then of the outputs, in the op table's order. */
export function signatureOf(program: Values, op: ProgramOp): OpSignature {
  const operands = [...op.inputs.filter((id) => id >= 0), ...op.outputs];
  const signature = { op: op.op, attrs: op.attrs, dtypes: operands.map((id) => program.values[id]!.dtype) };
  const weight = weightOf(program, op);
  const scheme = weight === undefined ? undefined : program.weights[weight]!.scheme;
  return scheme === undefined ? signature : { ...signature, weightScheme: scheme };
}

/** The number of the weight that is the op's operand `weight`. */
export function weightOf({ values }: Values, op: ProgramOp): number | undefined {
  const inputs: readonly string[] = ops[op.op].inputs;
  const value = values[op.inputs[inputs.indexOf('weight')] ?? -1];
  return value?.kind === 'weight' ? value.weight : undefined;
}

/** The same op on plain numbers. */
export function plain({ op, attrs, dtypes }: OpSignature): OpSignature {
  return { op, attrs, dtypes };
}

/** Equal for ops that differ in nothing but their layer. */
export function signatureKey({ op, attrs, dtypes, weightScheme }: OpSignature): string {
  const sameInAllLayers = Object.entries(attrs).filter(([name]) => name !== 'layer');
  return JSON.stringify([op, sameInAllLayers, dtypes, weightScheme]);
}
