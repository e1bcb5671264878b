import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { fuse } from './fuse.js';
import { gatherEarly } from './gather-early.js';
import { randomProgram } from '../../tests/support/random-program.js';
import { GraphBuilder } from './graph-builder.js';
import type { Program } from './program.js';
import { verify } from './verify.js';

const numTokens = 5;
const logitRows = [4, 1];

/** What each row of the program's outputs is, as an expression: ops applied to rows of inputs. */
function outputRows({ values, ops, outputs }: Program): string[][] {
  const rowsOf = new Map<number, string[]>();
  const rowsFor = (id: number): number => (values[id]!.dims[0] === 'L' ? logitRows.length : numTokens);
  const rowAt = (id: number, row: number): string => {
    const value = values[id]!;
    return value.kind === 'weight' ? `w${value.weight}` : (rowsOf.get(id)?.[row] ?? `t${row}`);
  };
  for (const op of ops) {
    const [y] = op.outputs as [number];
    const indices = Array.from({ length: rowsFor(y) }, (_, row) => row);
    const rows =
      op.op === 'gather_rows'
        ? indices.map((row) => rowAt(op.inputs[0]!, logitRows[row]!))
        : indices.map((row) => `${op.op}(${op.inputs.map((id) => (id < 0 ? '' : rowAt(id, row))).join()})`);
    rowsOf.set(y, rows);
  }
  return outputs.map((id) => rowsOf.get(id)!);
}

it('computes the same rows, of any program', () => {
  const choice = fc.tuple(fc.nat(20), fc.nat(20), fc.boolean());
  const property = fc.property(
    fc.array(choice, { minLength: 1, maxLength: 20 }),
    fc.boolean(),
    (choices, fused) => {
      const { g, token } = randomProgram(choices);
      if (choices[0]![2]) g.output(token[choices[0]![1] % token.length]!);
      const recorded = g.finish();
      const program = fused ? fuse(recorded, () => true) : recorded;
      const early = gatherEarly(program);
      verify(early);
      expect(outputRows(early)).toEqual(outputRows(program));
    },
  );
  fc.assert(property, { numRuns: 200 });
});

/** x + w x, whose logit rows are read. */
function twoLayers(keepsFirst: boolean): Program {
  const g = new GraphBuilder('f32');
  const x = g.embedding(g.input('tokenIds'), g.matrix('embed', 9, 4));
  const first = g.add(x, g.linear(x, g.matrix('w', 4, 4)));
  const second = g.add(first, g.linear(first, g.matrix('v', 4, 4)));
  g.output(g.gatherRows(second, g.input('logitRows')));
  if (keepsFirst) g.output(first);
  return g.finish();
}

it('moves the gather before all that works row by row, and gathers each value once', () => {
  const { ops, values } = gatherEarly(twoLayers(false));
  expect(ops.map((op) => op.op)).toEqual(['embedding', 'gather_rows', 'linear', 'add', 'linear', 'add']);
  expect(ops.slice(1).every((op) => values[op.outputs[0]!]!.dims[0] === 'L')).toBe(true);
});

it('keeps for all tokens what is read for all tokens', () => {
  const { ops } = gatherEarly(twoLayers(true));
  expect(ops.map((op) => op.op)).toEqual(['embedding', 'linear', 'add', 'gather_rows', 'linear', 'add']);
});

it('leaves a program without logit rows as it is', () => {
  const g = new GraphBuilder('f32');
  const x = g.embedding(g.input('tokenIds'), g.matrix('embed', 9, 4));
  g.output(g.add(x, x));
  const program = g.finish();
  expect(gatherEarly(program)).toBe(program);
});
