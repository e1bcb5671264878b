/** A Program being rewritten: who makes and who reads each value. */
import type { Program, ProgramOp, ProgramValue, ProgramWeight } from './program.js';
import { joinSchemes } from './weight-schemes.js';

/** `added` takes the place of the last of `removed`; the inputs of all of them are there by then. */
export interface Rewrite {
  readonly removed: readonly ProgramOp[];
  readonly added: readonly ProgramOp[];
}

export class Graph {
  readonly #program: Program;
  readonly values: ProgramValue[];
  readonly weights: ProgramWeight[];
  #ops: readonly ProgramOp[];
  readonly #producers = new Map<number, ProgramOp>();
  readonly #users = new Map<number, ProgramOp[]>();

  constructor(program: Program) {
    this.#program = program;
    this.values = [...program.values];
    this.weights = [...program.weights];
    this.#ops = program.ops;
    this.#index();
  }

  get ops(): readonly ProgramOp[] {
    return this.#ops;
  }

  toProgram(): Program {
    return { ...this.#program, values: this.values, weights: this.weights, ops: this.#ops };
  }

  usersOf(value: number): readonly ProgramOp[] {
    return this.#users.get(value) ?? [];
  }

  /** The op that makes a value which one operand alone reads. */
  soleProducer(value: number): ProgramOp | undefined {
    const readOnce = this.usersOf(value).length === 1 && !this.#program.outputs.includes(value);
    return readOnce ? this.#producers.get(value) : undefined;
  }

  apply({ removed, added }: Rewrite): void {
    const gone = new Set(removed);
    const place = this.#ops.findLastIndex((op) => gone.has(op));
    const before = this.#ops.slice(0, place).filter((op) => !gone.has(op));
    this.#ops = [...before, ...added, ...this.#ops.slice(place + 1)];
    this.#index();
  }

  /** One linear that computes all of them, side by side; undefined where they don't share their input or a kind of bias. */
  joinLinears(linears: readonly ProgramOp[]): ProgramOp | undefined {
    const [x, , firstBias] = linears[0]!.inputs as [number, number, number];
    const sameKind = linears.every((op) => op.inputs[0] === x && op.inputs[2]! >= 0 === firstBias >= 0);
    const ownWeights = linears.every((op) =>
      op.inputs.slice(1).every((id) => id < 0 || this.#isJoinable(id)),
    );
    if (!sameKind || !ownWeights) return undefined;
    const weight = this.#joinWeights(linears.map((op) => op.inputs[1]!));
    const bias = firstBias < 0 ? -1 : this.#joinWeights(linears.map((op) => op.inputs[2]!));
    const y = linears[0]!.outputs[0]!;
    const columns = this.values[weight]!.dims[0]!;
    const result = { ...this.values[y]!, dims: [this.values[y]!.dims[0]!, columns] };
    return { op: 'linear', inputs: [x, weight, bias], outputs: [this.values.push(result) - 1], attrs: {} };
  }

  /** Whether the value is a checkpoint's weight that one op alone reads, so that joining it leaves no second copy. */
  #isJoinable(id: number): boolean {
    const value = this.values[id]!;
    const isWeight = value.kind === 'weight' && this.weights[value.weight]!.data === undefined;
    return isWeight && this.usersOf(id).length === 1;
  }

  #joinWeights(ids: readonly number[]): number {
    const weights = ids.map((id) => {
      const value = this.values[id]!;
      return this.weights[value.kind === 'weight' ? value.weight : -1]!;
    });
    const rows = weights.reduce((sum, weight) => sum + weight.shape[0]!, 0);
    const joined: ProgramWeight = {
      name: joinNames(weights.map((weight) => weight.name)),
      parts: weights.flatMap((weight) => weight.parts),
      shape: [rows, ...weights[0]!.shape.slice(1)],
      dtype: weights[0]!.dtype,
      scheme: joinSchemes(weights.map((weight) => weight.scheme)),
    };
    const number = this.weights.push(joined) - 1;
    const value: ProgramValue = { kind: 'weight', weight: number, dtype: joined.dtype, dims: joined.shape };
    return this.values.push(value) - 1;
  }

  #index(): void {
    this.#producers.clear();
    this.#users.clear();
    for (const op of this.#ops) {
      for (const id of op.outputs) this.#producers.set(id, op);
      for (const id of op.inputs) if (id >= 0) this.#users.set(id, [...this.usersOf(id), op]);
    }
  }
}

/** `a.q.weight`, `a.k.weight` → `a.{q,k}.weight`. */
function joinNames(names: readonly string[]): string {
  const split = names.map((name) => name.split('.'));
  return split[0]!
    .map((_, i) => [...new Set(split.map((segments) => segments[i] ?? ''))])
    .map((segments) => (segments.length === 1 ? segments[0] : `{${segments.join(',')}}`))
    .join('.');
}
