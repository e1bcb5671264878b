/** A feed-forward block cut over two ranks: each has half of the inner columns, and the sums are reduced. */
import type { Dtype } from '../../../backend/index.js';
import type { Value } from '../../../program/graph-builder.js';
import { negotiated } from '../../check-op.js';
import type { ConformanceCase } from '../../case.js';
import { expectClose } from '../../compare.js';
import type { Kit } from '../../kit.js';
import { legalSteps, limitsFor } from '../../legal-steps.js';
import { OpProgram } from '../../op-program.js';
import { openRanks } from '../../ranks.js';
import { StepRunner } from '../../step-runner.js';
import { BlockGiver } from '../../test-sequences.js';
import { logitTolerance } from '../../tiny-run.js';

const [tokens, hidden, inner] = [6, 32, 64];

export function parallelCases(): ConformanceCase[] {
  return [{ name: 'L3/parallel/feed-forward-on-two-ranks', run: onTwoRanks }];
}

async function onTwoRanks(kit: Kit): Promise<void> {
  const dtype = kit.device.preferredDtype;
  const groups = await openRanks(kit, 2);
  try {
    const whole = await run(kit, await kit.group(), dtype, 0, 1);
    const parts = await Promise.all(groups.map((group, rank) => run(kit, group, dtype, rank, 2)));
    const largest = whole.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    const tolerance = (): number => logitTolerance[dtype]! * largest;
    parts.forEach((got, rank) =>
      expectClose(
        { of: 'feed-forward', columns: hidden, got, expected: whole, tolerance },
        `rank ${rank} of 2`,
      ),
    );
  } finally {
    await Promise.all(groups.map((group) => group.close()));
  }
}

async function run(
  kit: Kit,
  group: Awaited<ReturnType<Kit['open']>>,
  dtype: Dtype,
  rank: number,
  size: number,
): Promise<Float32Array> {
  const random = kit.random();
  const program = new OpProgram(dtype, random);
  const y = feedForward(program, rank, size);
  program.g.output(size === 1 ? y : program.g.op('all_reduce', { x: y }, {}));
  const limits = limitsFor(group.constraints, { tokens, seqs: 1, length: tokens }, program.vocabSize);
  const { plan } = await negotiated(group, program.finish(), limits, 'all_reduce');
  const runner = await StepRunner.load(group, plan, program.weights.write(kit.file('rank.safetensors')));
  const sequence = new BlockGiver(plan.limits, random).sequence(tokens);
  const [step] = legalSteps([sequence.next([3, 1, 4, 1, 5, 9])], group.constraints, plan.limits);
  const [output] = (await runner.enqueue(step!)).outputs.values();
  await runner.close();
  return output!.subarray(0, tokens * hidden);
}

/** down(silu(gate(x)) · up(x)) with this rank's rows of gate and up, and columns of down. */
function feedForward(p: OpProgram, rank: number, size: number): Value {
  const part = inner / size;
  const x = p.typed(hidden);
  const [gate, up] = ['gate', 'up'].map((name) => {
    const all = p.random.normals(inner * hidden, hidden ** -0.5);
    return p.g.linear(
      x,
      p.matrix(name, part, hidden, all.slice(rank * part * hidden, (rank + 1) * part * hidden)),
    );
  });
  const down = p.random.normals(hidden * inner, inner ** -0.5);
  const columns = Float32Array.from({ length: hidden * part }, (_, i) => down[Math.floor(i / part) * inner + rank * part + (i % part)]!); // prettier-ignore
  return p.g.linear(p.g.gatedAct(gate!, up!, 'silu'), p.matrix('down', hidden, part, columns));
}
