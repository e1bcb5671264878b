/** The Program: what a model file records once, with symbolic numbers of rows. Made by GraphBuilder, changed by passes only. */
import type {
  Dim,
  Dtype,
  OpName,
  PlanKvLayer,
  PlanWeight,
  StepInput,
  WeightScheme,
} from '../backend/index.js';

/** A weight as a model sees it; how it is used (and so laid out) follows from the ops that read it. */
export type ProgramWeight = Omit<PlanWeight, 'uses'>;

interface Typed {
  readonly dtype: Dtype;
  /** [rows, columns]; only the first may be symbolic. Weights: their own shape. State: []. */
  readonly dims: readonly Dim[];
}

export type ProgramValue = Typed &
  (
    | { readonly kind: 'weight'; readonly weight: number }
    | { readonly kind: 'input'; readonly input: StepInput }
    /** The KV cache as it is before the first write. */
    | { readonly kind: 'state' }
    | { readonly kind: 'result' }
  );

export interface ProgramOp {
  readonly op: OpName;
  /** Value numbers in the op table's operand order; -1 for an absent optional operand. */
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  readonly attrs: Readonly<Record<string, number>>;
}

export interface Program {
  /** The type of matrices, activations and the KV cache. */
  readonly dtype: Dtype;
  readonly values: readonly ProgramValue[];
  readonly weights: readonly ProgramWeight[];
  readonly kvLayers: readonly PlanKvLayer[];
  /** In the order of execution. */
  readonly ops: readonly ProgramOp[];
  /** Values that the step's result holds. */
  readonly outputs: readonly number[];
}

/** `f32[T, 64]`, for messages and `tenon explain`; a weight's scheme stands for its type. */
export function formatType({ dtype, dims }: Typed, scheme?: WeightScheme): string {
  return `${scheme ?? dtype}[${dims.join(', ')}]`;
}
