import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { dtypeBytes, type Plan, type PlanTensor } from '../backend/index.js';
import { fuse } from './fuse.js';
import { randomProgram } from '../../tests/support/random-program.js';
import { GraphBuilder } from './graph-builder.js';
import { lower } from './lower.js';

const limits = {
  maxTokens: 8,
  maxSeqs: 2,
  maxLogitRows: 6,
  maxModelLen: 32,
  blockSize: 16,
  numBlocks: 4,
  vocabSize: 9,
};

/** Replays the plan on an arena whose bytes know their owner: every read must find what was written last. */
function checkLiveness(plan: Plan): void {
  const rowsOf = { T: plan.limits.maxTokens, S: plan.limits.maxSeqs, L: plan.segments.at(-1)!.tile ?? 0 };
  const sizeOf = ({ dims, dtype }: PlanTensor): number =>
    dims.reduce<number>(
      (size, dim) => size * (typeof dim === 'number' ? dim : rowsOf[dim]),
      dtypeBytes[dtype],
    );
  const owners = new Int32Array(plan.arenaBytes).fill(-1);
  const spanOf = (id: number): Int32Array => {
    const tensor = plan.tensors[id];
    return tensor?.kind === 'buffer'
      ? owners.subarray(tensor.offset, tensor.offset + sizeOf(tensor))
      : owners.subarray(0, 0);
  };
  const runOps = (firstOp: number, numOps: number): void => {
    for (const op of plan.ops.slice(firstOp, firstOp + numOps)) {
      for (const id of op.inputs)
        expect(
          spanOf(id).every((owner) => owner === id),
          `${op.op} reads ${id}`,
        ).toBe(true);
      for (const id of op.outputs) spanOf(id).fill(id);
    }
  };
  for (const { firstOp, numOps, tile } of plan.segments) {
    for (let pass = 0; pass < (tile === undefined ? 1 : 3); pass++) runOps(firstOp, numOps);
  }
}

it('never lets a buffer overwrite another that is still read, in place or in a tile', () => {
  const choice = fc.tuple(fc.nat(20), fc.nat(20), fc.boolean());
  const property = fc.property(
    fc.array(choice, { minLength: 1, maxLength: 20 }),
    fc.boolean(),
    (choices, fused) => {
      const program = fuse(randomProgram(choices).g.finish(), () => fused);
      checkLiveness(lower(program, limits, { tile: 2 }));
    },
  );
  fc.assert(property, { numRuns: 200 });
});

it('writes linear_add onto its residual only where nothing reads that afterwards', () => {
  const g = new GraphBuilder('f32');
  const x = g.embedding(g.input('tokenIds'), g.matrix('embed', 9, 4));
  const sum = g.add(x, g.linear(x, g.matrix('w', 4, 4)));
  const other = g.add(x, g.linear(sum, g.matrix('v', 4, 4)));
  g.output(g.add(other, g.linear(other, g.matrix('u', 4, 4))));
  const plan = lower(fuse(g.finish(), () => true), limits); // prettier-ignore
  expect(plan.ops.map((op) => op.op)).toEqual(['embedding', 'linear_add', 'linear_add', 'linear_add']);
  const offsetOf = (id: number): number => (plan.tensors[id] as PlanTensor & { kind: 'buffer' }).offset;
  const [embedded, first, second] = plan.ops.map((op) => op.outputs[0]!);
  expect(offsetOf(first!)).not.toBe(offsetOf(embedded!));
  expect(offsetOf(second!)).toBe(offsetOf(embedded!));
});

it('leaves out weights that fusion has joined, and lists what is used', () => {
  const g = new GraphBuilder('f32');
  const x = g.embedding(g.input('tokenIds'), g.matrix('embed', 9, 4));
  const gate = g.linear(x, g.matrix('gate', 6, 4));
  g.output(g.gatedAct(gate, g.linear(x, g.matrix('up', 6, 4)), 'gelu'));
  const names = (accept: boolean): string[] => lower(fuse(g.finish(), () => accept), limits).weights.map(({ name }) => name); // prettier-ignore
  expect(names(true)).toEqual(['embed', '{gate,up}']);
  expect(names(false)).toEqual(['embed', 'gate', 'up']);
});

it('does not swallow a value that is read elsewhere or is an output', () => {
  const g = new GraphBuilder('f32');
  const x = g.embedding(g.input('tokenIds'), g.matrix('embed', 9, 4));
  const projected = g.linear(x, g.matrix('w', 4, 4));
  g.output(projected);
  g.output(g.add(x, projected));
  expect(fuse(g.finish(), () => true).ops.map((op) => op.op)).toEqual(['embedding', 'linear', 'add']);
});
