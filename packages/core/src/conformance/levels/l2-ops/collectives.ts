/** Collectives between two ranks, each with its own values, against their definition (program/reference/collective.ts). */
import type { Dtype, OpName } from '../../../backend/index.js';
import type { Value } from '../../../program/graph-builder.js';
import { allGather, allReduce, reduceScatter } from '../../../program/reference/collective.js';
import { roundTo } from '../../../program/reference/rounding.js';
import type { ConformanceCase } from '../../case.js';
import { negotiated } from '../../check-op.js';
import { expectClose, roundingOf } from '../../compare.js';
import type { Kit } from '../../kit.js';
import { legalSteps, limitsFor } from '../../legal-steps.js';
import { OpProgram } from '../../op-program.js';
import { openRanks } from '../../ranks.js';
import { Random } from '../../random.js';
import { StepRunner } from '../../step-runner.js';
import { BlockGiver } from '../../test-sequences.js';
import { programDtypes } from './op-cases.js';

const numRanks = 2;
type Collective = 'all_reduce' | 'all_gather' | 'reduce_scatter';
const definitions: Readonly<
  Record<Collective, (ranks: Float32Array[], rows: number, rank: number) => Float32Array>
> = {
  all_reduce: (ranks) => allReduce(ranks),
  all_gather: (ranks, rows) => allGather(ranks, rows),
  reduce_scatter: (ranks, rows, rank) => reduceScatter(ranks, rows, rank),
};

export function collectiveCases(): ConformanceCase[] {
  return (Object.keys(definitions) as Collective[]).flatMap((op) =>
    programDtypes.flatMap((dtype) =>
      [[1, 2], [5, 34], [33, 64]].map(([tokens, columns]) => ({
        name: `L2/${op}/${dtype}/tokens=${tokens},columns=${columns}`,
        op,
        run: (kit: Kit) => checkCollective(kit, op, dtype, tokens!, columns!),
      })),
    ),
  ); // prettier-ignore
}

async function checkCollective(
  kit: Kit,
  op: Collective,
  dtype: Dtype,
  tokens: number,
  columns: number,
): Promise<void> {
  kit.requireDtype(dtype);
  const groups = await openRanks(kit, numRanks);
  try {
    const seed = kit.random().below(2 ** 31);
    const tables = groups.map((_, rank) => new Random(seed + rank).normals(64 * columns));
    const ids = kit.random('tokens').ints(tokens, 64);
    const outputs = await Promise.all(
      groups.map(async (group, rank) => {
        const program = new OpProgram(dtype, kit.random(), 64);
        program.g.output(record(program, op, program.table(columns, tables[rank]!, dtype)));
        const limits = limitsFor(group.constraints, { tokens, seqs: 1, length: tokens }, 64);
        const { plan } = await negotiated(group, program.finish(), limits, op);
        const runner = await StepRunner.load(group, plan, program.weights.write(kit.file(`rank${rank}`)));
        const giver = new BlockGiver(plan.limits, kit.random());
        const [step] = legalSteps([giver.sequence(tokens).next(ids)], group.constraints, plan.limits);
        const [output] = (await runner.enqueue(step!)).outputs.values();
        await runner.close();
        return output!;
      }),
    );
    const rows = tables.map((table) => chosenRows(roundTo(table.slice(), dtype), ids, columns));
    outputs.forEach((got, rank) => {
      const expected = definitions[op](rows, tokens, rank);
      const tolerance = (i: number): number => 2 ** -23 * 8 + roundingOf(expected[i]!, dtype) * 1.001;
      const compared = {
        of: op,
        columns: expected.length / tokens,
        got: got.subarray(0, expected.length),
        expected,
      };
      expectClose({ ...compared, tolerance }, `rank ${rank}`, { op });
    });
  } finally {
    await Promise.all(groups.map((group) => group.close()));
  }
}

function record({ g }: OpProgram, op: OpName, x: Value): Value {
  return g.op(op, { x }, op === 'all_reduce' ? {} : { size: numRanks }, x.dtype);
}

function chosenRows(table: Float32Array, ids: readonly number[], columns: number): Float32Array {
  return Float32Array.from(ids.flatMap((id) => Array.from(table.subarray(id * columns, (id + 1) * columns))));
}
