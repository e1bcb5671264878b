import { describe, expect, it } from 'vitest';
import type { Dtype } from '../backend/index.js';
import { TenonError } from '../errors.js';
import { GraphBuilder } from './graph-builder.js';
import type { Program, ProgramOp } from './program.js';
import { verify } from './verify.js';

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(TenonError);
    return `${(error as TenonError).code}: ${(error as TenonError).message}`;
  }
  throw new Error('nothing was thrown');
}

/** tokenIds → embedding → norm → linear → gather → sample. */
function smallProgram(): Program {
  const g = new GraphBuilder('bf16');
  const x = g.embedding(g.input('tokenIds'), g.matrix('embed', 32, 8));
  const normed = g.rmsNorm(x, g.vector('norm', 8), { eps: 1e-6 });
  const rows = g.gatherRows(g.linear(normed, g.matrix('head', 32, 8)), g.input('logitRows'));
  g.sample(rows);
  return g.finish();
}

const withOp = (program: Program, index: number, change: (op: ProgramOp) => Partial<ProgramOp>): Program => ({
  ...program,
  ops: program.ops.map((op, i) => (i === index ? { ...op, ...change(op) } : op)),
});

describe('the builder', () => {
  it.each<[string, (g: GraphBuilder) => unknown, string]>([
    ['columns that do not fit', (g) => g.linear(g.matrix('x', 4, 8), g.matrix('w', 4, 9)), 'op 0 (linear): weight must be [4,8], is [4,9]'],
    ['types that do not fit', (g) => g.linear(g.embedding(g.input('tokenIds'), g.matrix('e', 4, 8)), g.matrix('w', 4, 8)), 'op 1 (linear): weight must be f32, is bf16'],
    ['a norm over an odd run', (g) => g.rmsNorm(g.matrix('x', 4, 8), g.vector('w', 3), { eps: 0, size: 3 }), 'size 3 must divide the 8 columns'],
    ['a residual of another width', (g) => g.add(g.matrix('a', 4, 8), g.matrix('b', 4, 7)), 'b must be [4,8], is [4,7]'],
    ['heads that do not fit', (g) => g.attention(g.matrix('q', 4, 8), 0, { numHeads: 3, numKvHeads: 2, headDim: 4, scale: 1 }), 'numHeads 3 must be a multiple of numKvHeads 2'],
    ['one weight in two shapes', (g) => [g.matrix('w', 4, 8), g.matrix('w', 8, 4)], 'weight w is [4,8] and [8,4]'],
    ['logits per token', (g) => g.sample(g.embedding(g.input('tokenIds'), g.matrix('e', 4, 8))), 'logits must be [L,8], is [T,8]'],
  ])('refuses %s', (_, record, message) => {
    expect(messageOf(() => record(new GraphBuilder('bf16')))).toContain(message);
  }); // prettier-ignore

  it('refuses a model type that is no float', () => {
    expect(messageOf(() => new GraphBuilder('i32' as Dtype))).toContain('unsupported.dtype');
  });

  it('holds a tied weight once', () => {
    const g = new GraphBuilder('f32');
    expect(g.matrix('w', 4, 8).id).toBe(g.matrix('w', 4, 8).id);
  });
});

describe('verify', () => {
  const program = smallProgram();

  it('accepts a sound program', () => verify(program));

  it.each<[string, () => Program, string]>([
    ['an operand that comes later', () => ({ ...program, ops: program.ops.toReversed() }), 'before it is computed'],
    ['a missing operand', () => withOp(program, 1, (op) => ({ inputs: [op.inputs[0]!, -1] })), 'op 1 (rms_norm): weight is missing'],
    ['a wrong number of operands', () => withOp(program, 1, (op) => ({ inputs: [op.inputs[0]!] })), 'has 1 inputs, not 2'],
    ['a missing attribute', () => withOp(program, 1, () => ({ attrs: { size: 8 } })), 'attribute eps is undefined'],
    ['an unknown attribute', () => withOp(program, 1, (op) => ({ attrs: { ...op.attrs, axis: 1 } })), 'has no attribute axis'],
    ['a fraction where a whole number belongs', () => withOp(program, 1, (op) => ({ attrs: { ...op.attrs, size: 7.5 } })), 'expected a 32-bit integer'],
    ['a value computed twice', () => ({ ...program, ops: [...program.ops.slice(0, 2), ...program.ops.slice(1)] }), 'is computed twice'],
    ['a result of the wrong shape', () => ({ ...program, values: program.values.map((value) => (value.kind === 'result' && value.dtype === 'bf16' ? { ...value, dims: ['T', 9] } : value)) }), 'y must be [T,8]'],
    ['a result of an impossible type', () => ({ ...program, values: program.values.map((value) => (value.kind === 'result' && value.dtype === 'bf16' ? { ...value, dtype: 'i32' } : value)) }), 'y must be f32 or bf16 or f16, is i32'],
    ['an op that the table lacks', () => withOp(program, 1, () => ({ op: 'conv' as ProgramOp['op'] })), 'unsupported.op'],
    ['an output that nothing computes', () => ({ ...program, outputs: [999] }), 'output 999'],
  ])('finds %s', (_, broken, message) => {
    expect(messageOf(() => verify(broken()))).toContain(message);
  }); // prettier-ignore

  it('finds work on tokens after logit rows', () => {
    const g = new GraphBuilder('f32');
    const x = g.embedding(g.input('tokenIds'), g.matrix('e', 32, 8));
    g.gatherRows(x, g.input('logitRows'));
    g.add(x, x);
    expect(messageOf(() => g.finish())).toContain(
      'op 2 (add) works on tokens after op 1 began with logit rows',
    );
  });

  it('finds a reader of an older cache, and a layer that does not match', () => {
    const g = new GraphBuilder('f32');
    const x = g.embedding(g.input('tokenIds'), g.matrix('e', 32, 8));
    const before = g.kvState();
    const layer = g.kvLayer({ numKvHeads: 2, headDim: 4 });
    g.kvWrite(x, x, layer, { numKvHeads: 2, headDim: 4 });
    const attrs = { layer, numHeads: 2, numKvHeads: 2, headDim: 4, scale: 1, slidingWindow: 0, softCap: 0 };
    g.op('attention', { q: x, kv: before }, attrs);
    expect(messageOf(() => g.finish())).toContain('the newest is');
    const other = new GraphBuilder('f32');
    const y = other.embedding(other.input('tokenIds'), other.matrix('e', 32, 8));
    other.kvLayer({ numKvHeads: 1, headDim: 8 });
    other.kvWrite(y, y, 0, { numKvHeads: 2, headDim: 4 });
    expect(messageOf(() => other.finish())).toContain('KV layer 0 has 1 heads of 8');
  });
});
