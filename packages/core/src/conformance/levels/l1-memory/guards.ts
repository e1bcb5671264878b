/** Guard tensors directly before and behind an op's output in the workspace: filled before, unchanged after. */
import type { Dtype, OpName, Plan, PlanTensor } from '../../../backend/index.js';
import type { Value } from '../../../program/graph-builder.js';
import { negotiated } from '../../check-op.js';
import type { ConformanceCase } from '../../case.js';
import { expectClose } from '../../compare.js';
import type { Kit } from '../../kit.js';
import { legalSteps, limitsFor } from '../../legal-steps.js';
import { OpProgram } from '../../op-program.js';
import { StepRunner } from '../../step-runner.js';
import { BlockGiver } from '../../test-sequences.js';
import { recordAttention } from '../l2-ops/attention.js';

const columns = 48;
/** An op's output of [T, …]: columns that leave vectors partly filled, in rows of whole cache lines together, so that no gap is unguarded. */
const recorders: Readonly<Partial<Record<OpName, (p: OpProgram, dtype: Dtype) => Value>>> = {
  embedding: (p, dtype) => p.table(38, p.random.normals(p.vocabSize * 38), dtype),
  rms_norm: (p, dtype) => p.g.rmsNorm(p.floats(38), p.vector('weight', p.random.normals(38)), { eps: 1e-5, dtype }),
  add: (p) => p.g.add(p.floats(38), p.floats(38)),
  linear: (p, dtype) => p.g.linear(p.rows(64, dtype), p.matrix('weight', 38, 64)),
  linear_add: (p, dtype) => p.g.op('linear_add', { x: p.rows(64, dtype), weight: p.matrix('weight', 38, 64), residual: p.floats(38) }, {}),
  linear_gated: (p, dtype) => p.g.op('linear_gated', { x: p.rows(64, dtype), weight: p.matrix('weight', 76, 64) }, { activation: 0 }, dtype),
  gated_act: (p, dtype) => p.g.op('gated_act', { gate: p.floats(38), up: p.floats(38) }, { activation: 0 }, dtype),
  rope_cos_sin: (p) => p.g.ropeCosSin(p.g.input('positions'), p.g.constant('inv_freq', p.random.normals(19)), { scale: 1 }),
  rope: (p, dtype) => p.g.op('rope', { x: p.floats(3 * 26), cosSin: p.floats(26) }, { numHeads: 3, headDim: 26, rotaryDim: 26, interleaved: 0 }, dtype),
  attention: (p, dtype) => recordAttention(p, { numHeads: 3, numKvHeads: 1, headDim: 16 }, dtype),
}; // prettier-ignore

export function guardCases(): ConformanceCase[] {
  return (Object.keys(recorders) as OpName[]).flatMap((op) =>
    (['f32', 'bf16', 'f16'] as const).map((dtype) => ({
      name: `L1/guards/${op}/${dtype}`,
      op,
      run: (kit) => checkGuards(kit, op, dtype),
    })),
  );
}

async function checkGuards(kit: Kit, op: OpName, dtype: Dtype): Promise<void> {
  kit.requireDtype(dtype);
  const group = await kit.group();
  const program = new OpProgram(dtype, kit.random());
  const { g } = program;
  const guards = ['before', 'behind'].map(() => program.table(columns, guardValues(program), 'f32'));
  const y = recorders[op]!(program, dtype);
  g.output(g.add(y, y));
  for (const guard of guards) g.output(g.add(guard, guard));
  const limits = limitsFor(group.constraints, { tokens: 16, seqs: 1, length: 16 }, program.vocabSize);
  const { plan: lowered } = await negotiated(group, program.finish(), limits, op);
  const outputOf = (id: number): number => lowered.ops[id]!.outputs[0]!;
  const underTest = outputOf(lowered.ops.findLastIndex((each) => each.op === op && each.outputs.some((id) => lowered.tensors[id]!.kind === 'buffer'))); // prettier-ignore
  const plan = placeAround(lowered, [outputOf(0), outputOf(1)], underTest);
  const { maxTokens } = plan.limits;
  const sequence = new BlockGiver({ ...plan.limits, maxSeqs: 1 }, program.random).sequence(
    Math.min(16, maxTokens),
  );
  const ids = program.random.ints(sequence.promptLen, program.vocabSize);
  const [step] = legalSteps([sequence.next(ids)], group.constraints, plan.limits);
  const runner = await StepRunner.load(group, plan, program.weights.write(kit.file('guards.safetensors')));
  const { outputs } = await runner.enqueue(step!);
  await runner.close();
  [...outputs.values()].slice(-2).forEach((got, i) => {
    const expected = ids.flatMap((id) => Array<number>(columns).fill(2 * guardValue(id)));
    const of = i === 0 ? 'the guard before the output' : 'the guard behind the output';
    expectClose({ of, columns, got: got.subarray(0, expected.length), expected, tolerance: () => 0 }, op, {
      op,
    });
  });
}

/** A number that every type holds. */
const guardValue = (token: number): number => 1 + (token % 16);
const guardValues = ({ vocabSize }: OpProgram): Float32Array =>
  Float32Array.from({ length: vocabSize * columns }, (_, i) => guardValue(Math.floor(i / columns)));

/** The plan with every buffer in a place of its own: first a guard, then the output under test, then the other guard. */
function placeAround(plan: Plan, [before, behind]: readonly [number, number], underTest: number): Plan {
  const others = plan.tensors.flatMap((tensor, id) => (tensor.kind === 'buffer' ? [id] : []));
  const order = [
    before,
    underTest,
    behind,
    ...others.filter((id) => ![before, underTest, behind].includes(id)),
  ];
  const tensors: PlanTensor[] = [...plan.tensors];
  let end = 0;
  for (const id of order) {
    const tensor = tensors[id]!;
    if (tensor.kind !== 'buffer') continue;
    tensors[id] = { ...tensor, offset: end };
    const bytes = plan.limits.maxTokens * Number(tensor.dims[1]) * (tensor.dtype === 'f32' ? 4 : 2);
    end += Math.ceil(bytes / 64) * 64;
  }
  return { ...plan, tensors, arenaBytes: end };
}
