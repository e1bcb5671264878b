/**
 * The early gather: what only logit rows are read of is computed for logit rows only. op(x)[rows] becomes op(x[rows]), from the
 * head of the model back to the last op that needs all tokens (the last layer's attention), so a prompt's last layer costs a
 * few rows instead of all. A row's result does not depend on the rows beside it: the results are the same to the bit.
 */
import type { OpName } from '../backend/index.js';
import type { Program, ProgramOp, ProgramValue } from './program.js';

/** Ops whose row r of the results comes from row r of the operands. */
const rowWise: ReadonlySet<OpName> = new Set<OpName>([
  'rms_norm', 'linear', 'add', 'gated_act', 'linear_add', 'linear_gated',
]); // prettier-ignore

export function gatherEarly(program: Program): Program {
  const narrow = narrowOps(program);
  return narrow.size === 0 ? program : new Narrowing(program, narrow).run();
}

/** Whether the op picks the logit rows of its first operand. */
function picksLogitRows({ values }: Program, op: ProgramOp): boolean {
  const rows = values[op.inputs[1]!];
  return op.op === 'gather_rows' && rows?.kind === 'input' && rows.input === 'logitRows';
}

/** The row-wise ops over tokens of whose results nothing but logit rows is read, through other such ops or not. */
function narrowOps(program: Program): ReadonlySet<ProgramOp> {
  const { values, ops, outputs } = program;
  const picked = new Set<number>();
  const wide = new Set(outputs);
  const narrow = new Set<ProgramOp>();
  for (const op of ops.toReversed()) {
    const onTokens = rowWise.has(op.op) && op.outputs.every((id) => values[id]!.dims[0] === 'T');
    const isNarrow = onTokens && op.outputs.every((id) => picked.has(id) && !wide.has(id));
    if (isNarrow) narrow.add(op);
    for (const id of op.inputs) (isNarrow || picksLogitRows(program, op) ? picked : wide).add(id);
  }
  return narrow;
}

/** Rewrites a program in one pass; narrow ops move behind all ops over tokens, where logit rows belong. */
class Narrowing {
  readonly #program: Program;
  readonly #narrow: ReadonlySet<ProgramOp>;
  readonly #values: ProgramValue[];
  readonly #tokenOps: ProgramOp[] = [];
  readonly #logitRowOps: ProgramOp[] = [];
  readonly #rows: number;
  /** Value over tokens → the same value over logit rows. */
  readonly #narrowed = new Map<number, number>();
  /** What a dropped gather gave → the value that takes its place. */
  readonly #replaced = new Map<number, number>();

  constructor(program: Program, narrow: ReadonlySet<ProgramOp>) {
    this.#program = program;
    this.#narrow = narrow;
    this.#values = [...program.values];
    this.#rows = program.values.findIndex((value) => value.kind === 'input' && value.input === 'logitRows');
  }

  run(): Program {
    for (const op of this.#program.ops) {
      if (this.#narrow.has(op)) this.#addNarrow(op);
      else if (picksLogitRows(this.#program, op))
        this.#replaced.set(op.outputs[0]!, this.#overLogitRows(op.inputs[0]!));
      else this.#add(op);
    }
    const outputs = this.#program.outputs.map((id) => this.#replaced.get(id) ?? id);
    return {
      ...this.#program,
      values: this.#values,
      ops: [...this.#tokenOps, ...this.#logitRowOps],
      outputs,
    };
  }

  #add(op: ProgramOp): void {
    const moved = { ...op, inputs: op.inputs.map((id) => this.#replaced.get(id) ?? id) };
    const onTokens = op.outputs.every((id) => this.#values[id]!.dims[0] !== 'L');
    (onTokens ? this.#tokenOps : this.#logitRowOps).push(moved);
  }

  #addNarrow(op: ProgramOp): void {
    const inputs = op.inputs.map((id) => (this.#values[id]?.dims[0] === 'T' ? this.#overLogitRows(id) : id));
    const outputs = op.outputs.map((id) => this.#newValue(id));
    this.#logitRowOps.push({ ...op, inputs, outputs });
  }

  /** The value's logit rows: as a narrow op computes them, or gathered once. */
  #overLogitRows(id: number): number {
    const known = this.#narrowed.get(id);
    if (known !== undefined) return known;
    const outputs = [this.#newValue(id)];
    this.#logitRowOps.push({ op: 'gather_rows', inputs: [id, this.#rows], outputs, attrs: {} });
    return outputs[0]!;
  }

  #newValue(id: number): number {
    const { dtype, dims } = this.#values[id]!;
    const number = this.#values.push({ kind: 'result', dtype, dims: ['L', ...dims.slice(1)] }) - 1;
    this.#narrowed.set(id, number);
    return number;
  }
}
