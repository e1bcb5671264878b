/**
 * The shape and dtype rule of each op: checks its inputs, and says the shape and the possible types of its outputs. Builder
 * and verifier both follow it.
 */
import { activations, type Dim, type Dtype, type OpName } from '../backend/index.js';

export interface Operand {
  readonly dtype: Dtype;
  readonly dims: readonly Dim[];
}

export interface OutputRule {
  readonly dims: readonly Dim[];
  /** Types that the output may have; the first is the usual one. */
  readonly dtypes: readonly Dtype[];
}

/** What a rule sees of one op. `check` fails the op with a message. */
export interface RuleContext {
  /** An operand, by name; absent optional ones are undefined. */
  readonly get: (name: string) => Operand | undefined;
  readonly attrs: Readonly<Record<string, number>>;
  readonly check: (condition: boolean, message: string) => asserts condition;
}

type Rule = (context: RuleContext) => readonly OutputRule[];

const floats: readonly Dtype[] = ['f32', 'bf16', 'f16'];
const isFloat = (dtype: Dtype): boolean => floats.includes(dtype);

function need(context: RuleContext, name: string): Operand {
  const operand = context.get(name);
  context.check(operand !== undefined, `${name} is missing`);
  return operand!;
}

/** An operand of rank 2 and a float type. */
function matrix(context: RuleContext, name: string): { rows: Dim; columns: number; dtype: Dtype } {
  const { dims, dtype } = need(context, name);
  const [rows, columns] = dims;
  context.check(
    dims.length === 2 && typeof columns === 'number',
    `${name} must be [rows, columns], is [${dims}]`,
  );
  context.check(isFloat(dtype), `${name} must be of a float type, is ${dtype}`);
  return { rows: rows!, columns: columns as number, dtype };
}

/** An operand of exactly these dimensions and one of these types. */
function expect(context: RuleContext, name: string, dims: readonly Dim[], dtypes: readonly Dtype[]): Operand {
  const operand = need(context, name);
  const same = operand.dims.length === dims.length && operand.dims.every((dim, i) => dim === dims[i]);
  context.check(same, `${name} must be [${dims}], is [${operand.dims}]`);
  context.check(
    dtypes.includes(operand.dtype),
    `${name} must be ${dtypes.join(' or ')}, is ${operand.dtype}`,
  );
  return operand;
}

function expectOptional(
  context: RuleContext,
  name: string,
  dims: readonly Dim[],
  dtypes: readonly Dtype[],
): void {
  if (context.get(name) !== undefined) expect(context, name, dims, dtypes);
}

function attr(context: RuleContext, name: string, min: number): number {
  const value = context.attrs[name]!;
  context.check(value >= min, `${name} must be ${min} or more, is ${value}`);
  return value;
}

function checkActivation(context: RuleContext): void {
  const { activation } = context.attrs;
  context.check(activations[activation!] !== undefined, `activation ${activation} is unknown`);
}

/** x [R, K] times weight [N, K], both of one type, bias [N] f32. */
function linearShape(context: RuleContext): { rows: Dim; columns: number; dtype: Dtype } {
  const x = matrix(context, 'x');
  const weight = matrix(context, 'weight');
  context.check(typeof weight.rows === 'number', 'weight must not have symbolic rows');
  expect(context, 'weight', [weight.rows, x.columns], [x.dtype]);
  expectOptional(context, 'bias', [weight.rows], ['f32']);
  return { rows: x.rows, columns: weight.rows as number, dtype: x.dtype };
}

function headShape(context: RuleContext): { numHeads: number; numKvHeads: number; headDim: number } {
  const numHeads = attr(context, 'numHeads', 1);
  const numKvHeads = attr(context, 'numKvHeads', 1);
  context.check(
    numHeads % numKvHeads === 0,
    `numHeads ${numHeads} must be a multiple of numKvHeads ${numKvHeads}`,
  );
  return { numHeads, numKvHeads, headDim: attr(context, 'headDim', 1) };
}

function checkRotaryDim(context: RuleContext, headDim: number): number {
  const rotaryDim = attr(context, 'rotaryDim', 2);
  context.check(
    rotaryDim <= headDim && rotaryDim % 2 === 0,
    `rotaryDim ${rotaryDim} must be even, at most ${headDim}`,
  );
  return rotaryDim;
}

const state: OutputRule = { dims: [], dtypes: ['state'] };

export const opRules: Readonly<Record<OpName, Rule>> = {
  embedding: (context) => {
    const weight = matrix(context, 'weight');
    const [rows] = need(context, 'tokenIds').dims;
    expect(context, 'tokenIds', [rows!], ['i32']);
    return [{ dims: [rows!, weight.columns], dtypes: ['f32', weight.dtype] }];
  },

  rms_norm: (context: RuleContext) => {
    const x = matrix(context, 'x');
    const size = attr(context, 'size', 1);
    context.check(x.columns % size === 0, `size ${size} must divide the ${x.columns} columns of x`);
    expect(context, 'weight', [size], ['f32']);
    return [{ dims: [x.rows, x.columns], dtypes: floats }];
  },

  linear: (context) => {
    const y = linearShape(context);
    return [{ dims: [y.rows, y.columns], dtypes: ['f32', y.dtype] }];
  },

  add: (context) => {
    const a = matrix(context, 'a');
    expect(context, 'b', [a.rows, a.columns], floats);
    return [{ dims: [a.rows, a.columns], dtypes: ['f32', a.dtype] }];
  },

  rope_cos_sin: (context) => {
    const [rows] = need(context, 'positions').dims;
    const rotaryDim = attr(context, 'rotaryDim', 2);
    expect(context, 'positions', [rows!], ['i32']);
    expect(context, 'invFreq', [rotaryDim / 2], ['f32']);
    return [{ dims: [rows!, rotaryDim], dtypes: ['f32'] }];
  },

  rope: (context) => {
    const x = matrix(context, 'x');
    const numHeads = attr(context, 'numHeads', 1);
    const headDim = attr(context, 'headDim', 1);
    expect(context, 'x', [x.rows, numHeads * headDim], floats);
    expect(context, 'cosSin', [x.rows, checkRotaryDim(context, headDim)], ['f32']);
    return [{ dims: [x.rows, x.columns], dtypes: floats }];
  },

  kv_write: (context) => {
    const size = attr(context, 'numKvHeads', 1) * attr(context, 'headDim', 1);
    const k = matrix(context, 'k');
    expect(context, 'k', [k.rows, size], floats);
    expect(context, 'v', [k.rows, size], floats);
    expect(context, 'slotMapping', [k.rows], ['i32']);
    expect(context, 'kv', [], ['state']);
    return [state];
  },

  attention: (context) => {
    const { numHeads, headDim } = headShape(context);
    const q = matrix(context, 'q');
    expect(context, 'q', [q.rows, numHeads * headDim], floats);
    expect(context, 'kv', [], ['state']);
    attr(context, 'slidingWindow', 0);
    attr(context, 'softCap', 0);
    return [{ dims: [q.rows, q.columns], dtypes: [q.dtype] }];
  },

  gated_act: (context) => {
    const gate = matrix(context, 'gate');
    expect(context, 'up', [gate.rows, gate.columns], floats);
    checkActivation(context);
    return [{ dims: [gate.rows, gate.columns], dtypes: floats }];
  },

  gather_rows: (context) => {
    const x = matrix(context, 'x');
    const [rows] = need(context, 'rows').dims;
    expect(context, 'rows', [rows!], ['i32']);
    return [{ dims: [rows!, x.columns], dtypes: [x.dtype] }];
  },

  sample: (context) => {
    const logits = matrix(context, 'logits');
    expect(context, 'logits', ['L', logits.columns], ['f32']);
    return [{ dims: ['L'], dtypes: ['i32'] }];
  },

  linear_add: (context) => {
    const y = linearShape(context);
    expect(context, 'residual', [y.rows, y.columns], ['f32']);
    return [{ dims: [y.rows, y.columns], dtypes: ['f32'] }];
  },

  linear_gated: (context: RuleContext) => {
    const y = linearShape(context);
    context.check(y.columns % 2 === 0, `weight must have an even number of rows, has ${y.columns}`);
    checkActivation(context);
    return [{ dims: [y.rows, y.columns / 2], dtypes: [y.dtype, 'f32'] }];
  },

  qkv_rope_kv_write: (context) => {
    const { numHeads, numKvHeads, headDim } = headShape(context);
    const { rows } = matrix(context, 'qkv');
    expect(context, 'qkv', [rows, (numHeads + 2 * numKvHeads) * headDim], ['f32']);
    expect(context, 'cosSin', [rows, checkRotaryDim(context, headDim)], ['f32']);
    expectOptional(context, 'qNorm', [headDim], ['f32']);
    expectOptional(context, 'kNorm', [headDim], ['f32']);
    expect(context, 'slotMapping', [rows], ['i32']);
    expect(context, 'kv', [], ['state']);
    return [{ dims: [rows, numHeads * headDim], dtypes: floats }, state];
  },

  all_reduce: (context) => {
    const x = matrix(context, 'x');
    return [{ dims: [x.rows, x.columns], dtypes: [x.dtype] }];
  },

  all_gather: (context) => {
    const x = matrix(context, 'x');
    return [{ dims: [x.rows, x.columns * attr(context, 'size', 1)], dtypes: [x.dtype] }];
  },

  reduce_scatter: (context: RuleContext) => {
    const x = matrix(context, 'x');
    const size = attr(context, 'size', 1);
    context.check(x.columns % size === 0, `size ${size} must divide the ${x.columns} columns of x`);
    return [{ dims: [x.rows, x.columns / size], dtypes: [x.dtype] }];
  },
};
