/** Checks a Program: operands, attributes, shapes, types, order of definition, the chain of KV states, and its segments. */
import { ops, stepInputs, type OpName, type OpSpec } from '../backend/index.js';
import { TenonError, invariant } from '../errors.js';
import { opRules, type Operand, type OutputRule } from './op-rules.js';
import { formatType, type Program, type ProgramOp, type ProgramValue } from './program.js';

/** `qNorm?` → `qNorm`. */
export const operandName = (operand: string): string => operand.replace('?', '');
const isOptional = (operand: string): boolean => operand.endsWith('?');

/**
 * What the op gives for these operands (in the table's order, undefined where absent).
 * Throws internal.invariant naming op and operand where they do not fit.
 */
export function inferOutputs(
  op: OpName,
  operands: readonly (Operand | undefined)[],
  attrs: Readonly<Record<string, number>>,
  where: string = op,
): readonly OutputRule[] {
  const names = ops[op].inputs.map(operandName);
  return opRules[op]({
    get: (name) => operands[names.indexOf(name)],
    attrs,
    check: (condition, message) => invariant(condition, `${where}: ${message}`),
  });
}

/** Throws internal.invariant with the op's number and name at the first fault. */
export function verify(program: Program): void {
  checkWeights(program);
  const defined = new Set<number>();
  program.values.forEach((value, id) => {
    if (value.kind !== 'result') defined.add(id);
  });
  let kv = program.values.findIndex((value) => value.kind === 'state');
  program.ops.forEach((op, index) => {
    const where = `op ${index} (${op.op})`;
    checkOperands(program, op, where, defined);
    checkAttrs(op, where);
    kv = checkState(program, op, where, kv);
    checkOutputs(program, op, where, defined);
  });
  checkSegments(program);
  for (const id of program.outputs)
    invariant(defined.has(id), `output ${id} of the program is never computed`);
}

function checkWeights({ weights, values }: Program): void {
  const names = new Set<string>();
  for (const { name, shape, data } of weights) {
    invariant(!names.has(name), `weight ${name} is declared twice`);
    names.add(name);
    const sizeOk = shape.length >= 1 && shape.every((dim) => Number.isInteger(dim) && dim > 0);
    invariant(sizeOk, `weight ${name} has the shape [${shape}]; sizes must be 1 or more`);
    const numel = shape.reduce((product, dim) => product * dim, 1);
    invariant(
      data === undefined || data.length === numel,
      `constant ${name} has ${data?.length} values, not ${numel}`,
    );
  }
  for (const value of values) {
    if (value.kind === 'weight')
      invariant(weights[value.weight] !== undefined, `there is no weight ${value.weight}`);
    if (value.kind === 'input')
      invariant(stepInputs.includes(value.input), `there is no step input ${value.input}`);
  }
}

function checkOperands(
  { values }: Program,
  op: ProgramOp,
  where: string,
  defined: ReadonlySet<number>,
): void {
  const spec: OpSpec | undefined = ops[op.op];
  if (spec === undefined) throw new TenonError('unsupported.op', `${where}: the op table has no such op`);
  invariant(
    op.inputs.length === spec.inputs.length,
    `${where} has ${op.inputs.length} inputs, not ${spec.inputs.length}`,
  );
  spec.inputs.forEach((operand, i) => {
    const id = op.inputs[i]!;
    if (id === -1) invariant(isOptional(operand), `${where}: ${operand} is missing`);
    else
      invariant(
        values[id] !== undefined && defined.has(id),
        `${where}: ${operand} reads value ${id} before it is computed`,
      );
  });
}

function checkAttrs(op: ProgramOp, where: string): void {
  const spec: OpSpec = ops[op.op];
  for (const name of Object.keys(op.attrs))
    invariant(name in spec.attrs, `${where} has no attribute ${name}`);
  for (const [name, type] of Object.entries(spec.attrs)) {
    const value = op.attrs[name];
    invariant(
      value !== undefined && Number.isFinite(value),
      `${where}: attribute ${name} is ${value}; expected a number`,
    );
    const whole = type === 'f' || (Number.isInteger(value) && Math.abs(value) < 2 ** 31);
    invariant(whole, `${where}: attribute ${name} is ${value}; expected a 32-bit integer`);
  }
}

/** Every reader and writer of the cache must follow the newest write. Returns the newest state after this op. */
function checkState(program: Program, op: ProgramOp, where: string, newest: number): number {
  const { values, kvLayers } = program;
  const stateIn = op.inputs.find((id) => values[id]?.kind !== undefined && values[id]!.dtype === 'state');
  if (stateIn === undefined) return newest;
  invariant(stateIn === newest, `${where} uses KV state ${stateIn}; the newest is ${newest}`);
  const layer = kvLayers[op.attrs.layer!];
  invariant(layer !== undefined, `${where}: there is no KV layer ${op.attrs.layer}`);
  const same = layer.numKvHeads === op.attrs.numKvHeads && layer.headDim === op.attrs.headDim;
  invariant(same, `${where}: KV layer ${op.attrs.layer} has ${layer.numKvHeads} heads of ${layer.headDim}`);
  return op.outputs.find((id) => values[id]?.dtype === 'state') ?? newest;
}

function checkOutputs({ values }: Program, op: ProgramOp, where: string, defined: Set<number>): void {
  const operands = op.inputs.map((id): ProgramValue | undefined => values[id]);
  const rules = inferOutputs(op.op, operands, op.attrs, where);
  invariant(
    op.outputs.length === rules.length,
    `${where} has ${op.outputs.length} outputs, not ${rules.length}`,
  );
  rules.forEach((rule, i) => {
    const id = op.outputs[i]!;
    const value = values[id];
    invariant(value?.kind === 'result', `${where}: output ${id} is not a result`);
    invariant(!defined.has(id), `${where}: value ${id} is computed twice`);
    const name = ops[op.op].outputs[i]!;
    const sameShape =
      value.dims.length === rule.dims.length && value.dims.every((dim, d) => dim === rule.dims[d]);
    invariant(sameShape, `${where}: ${name} must be [${rule.dims}], is ${formatType(value)}`);
    invariant(
      rule.dtypes.includes(value.dtype),
      `${where}: ${name} must be ${rule.dtypes.join(' or ')}, is ${value.dtype}`,
    );
    defined.add(id);
  });
}

/** Logit rows come last: they run in tiles, so nothing per token may follow them. */
function checkSegments({ values, ops: programOps }: Program): void {
  let head = -1;
  programOps.forEach((op, index) => {
    if (hasLogitRows(values, op)) head = head < 0 ? index : head;
    else invariant(head < 0, `op ${index} (${op.op}) works on tokens after op ${head} began with logit rows`);
  });
}

/** Whether the op's results have one row per logit row. */
export function hasLogitRows(values: readonly ProgramValue[], op: ProgramOp): boolean {
  return op.outputs.some((id) => values[id]!.dims[0] === 'L');
}
