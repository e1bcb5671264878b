/** Runs a program of one op on the backend and on the reference, and compares: the heart of levels 1 and 2. */
import {
  ops,
  type DeviceGroup,
  type Dtype,
  type OpAnswer,
  type OpName,
  type Plan,
  type PlanLimits,
} from '../backend/index.js';
import type { Value } from '../program/graph-builder.js';
import { lower } from '../program/lower.js';
import type { Program } from '../program/program.js';
import { signatureOf } from '../program/signature.js';
import { check, fail, skip } from './case.js';
import { epsOf, expectClose, roundingOf } from './compare.js';
import type { Kit } from './kit.js';
import { legalSteps, limitsFor, type LegalStep, type WantedSizes } from './legal-steps.js';
import { OpProgram } from './op-program.js';
import { encodeStep, type PlainSequence } from './plain-step.js';
import { ReferenceRunner, withUnroundedOutputs } from './reference-runner.js';
import { countsOf, StepRunner, type StepResult } from './step-runner.js';
import { BlockGiver } from './test-sequences.js';

/**
 * What an element may be off by, besides the rounding to its type: `factor · √n · eps · magnitude`.
 * `absolute`: the magnitude is the op's own result for the absolute values of all weights, Σ |a| |b| for a product.
 * `row`: the largest value of its row. A number: that.
 */
export interface Tolerance {
  /** Type in which the op computes; by default f32. */
  readonly dtype?: Dtype;
  /** eps itself, where it is not that of a type. */
  readonly eps?: number;
  /** Terms of the sums behind an element. */
  readonly n?: number;
  readonly factor?: number;
  readonly magnitude: 'absolute' | 'row' | number;
}

export interface OpCheck {
  readonly op: OpName;
  readonly dtype: Dtype;
  readonly vocabSize?: number;
  /** Records the program around the op; what it returns is compared. */
  readonly record: (program: OpProgram) => Value;
  readonly sizes: WantedSizes;
  /** The steps, each as the sequences in it; by default one prompt of `sizes.tokens` tokens. */
  readonly steps?: (giver: BlockGiver, program: OpProgram, limits: PlanLimits) => PlainSequence[][];
  readonly tolerance: Tolerance;
}

/** A program that the backend has answered for, with its plan. */
export interface NegotiatedProgram {
  readonly plan: Plan;
  readonly answers: readonly OpAnswer[];
}

/** Fails where the backend does not compute what the reference does; skips where it says why it has no kernel. */
export async function checkOp(kit: Kit, spec: OpCheck): Promise<void> {
  kit.requireDtype(spec.dtype);
  const group = await kit.group();
  const random = kit.random();
  const program = new OpProgram(spec.dtype, random, spec.vocabSize);
  program.g.output(spec.record(program));
  const limits = limitsFor(group.constraints, spec.sizes, program.vocabSize);
  const { plan } = await negotiated(group, program.finish(), limits, spec.op);
  const giver = new BlockGiver(plan.limits, random);
  const sequences = (spec.steps ?? onePrompt(spec.sizes.tokens))(giver, program, plan.limits);
  const steps = sequences.flatMap((step) => legalSteps(step, group.constraints, plan.limits));
  const weights = program.weights.write(kit.file('op.safetensors'));
  const reference = await ReferenceRunner.load(withUnroundedOutputs(plan), weights);
  const expected = steps.map((step) => reference.run(step));
  const magnitudes =
    spec.tolerance.magnitude === 'absolute' ? await absoluteResults(plan, weights, steps) : undefined;
  const runner = await StepRunner.load(group, plan, weights);
  const results = await runner.runAll(steps);
  await runner.close();
  steps.forEach((step, i) =>
    compareOutputs(
      spec,
      plan,
      step,
      results[i]!,
      expected[i]!,
      magnitudes?.[i],
      `step ${i + 1} of ${steps.length}`,
    ),
  );
}

const onePrompt =
  (numTokens: number) =>
  (giver: BlockGiver, { random, vocabSize }: OpProgram, limits: PlanLimits): PlainSequence[][] => {
    const size = Math.min(numTokens, limits.maxTokens);
    return [[giver.sequence(size).next(random.ints(size, vocabSize))]];
  };

/**
 * The plan of a program as it is recorded, without fusion. The op under test has to be native or say why not; feeds of it
 * that are not native skip the case.
 */
export async function negotiated(
  group: DeviceGroup,
  program: Program,
  limits: PlanLimits,
  op: OpName,
): Promise<NegotiatedProgram> {
  const signatures = program.ops.map((each) => signatureOf(program, each));
  const { answers } = await group.negotiate({ ops: signatures });
  check(
    answers.length === signatures.length,
    `negotiate gave ${answers.length} answers for ${signatures.length} ops`,
  );
  signatures.forEach((signature, i) => {
    checkAnswer(signature.op, answers[i]!);
    if (answers[i]!.support === 'native') return;
    const reason = `${answers[i]!.support}: ${answers[i]!.reason}`;
    skip(signature.op === op ? reason : `${signature.op}, which feeds it, is ${reason}`);
  });
  return { plan: lower(program, limits, { tokenBuckets: group.constraints.tokenBuckets }), answers };
}

/** Whether an answer is one that the contract allows. */
export function checkAnswer(op: OpName, { support, reason, kernel, capture = 'safe' }: OpAnswer): void {
  if (!['native', 'decompose', 'unsupported'].includes(support))
    fail(`negotiate answers '${support}' for ${op}; expected native, decompose or unsupported`, { op });
  if (!['safe', 'needs-rebind', 'never'].includes(capture))
    fail(`negotiate says capture '${capture}' for ${op}; expected safe, needs-rebind or never`, { op });
  if (support === 'native' && !kernel) fail(`${op} is native, by a kernel of no name`, { op });
  if (support !== 'native' && !reason) fail(`${op} is ${support}, and no reason is given`, { op });
  if (support === 'decompose' && !ops[op].fused)
    fail(`${op} is to be decomposed, but it has no smaller parts: it must be native or unsupported`, { op });
}

/** The results for absolute values of all weights. */
async function absoluteResults(
  plan: Plan,
  weights: Parameters<typeof ReferenceRunner.load>[1],
  steps: readonly LegalStep[],
): Promise<StepResult[]> {
  const absolute = await ReferenceRunner.load(withUnroundedOutputs(plan), weights, (values) =>
    values.map(Math.abs),
  );
  return steps.map((step) => absolute.run(step));
}

/** Compares the outputs' rows that are no padding. */
export function compareOutputs(
  { op, tolerance }: Pick<OpCheck, 'op' | 'tolerance'>,
  plan: Plan,
  step: LegalStep,
  got: StepResult,
  expected: StepResult,
  magnitudes: StepResult | undefined,
  where: string,
): void {
  for (const [id, values] of expected.outputs) {
    const { dims, dtype } = plan.tensors[id]!;
    const columns = typeof dims[1] === 'number' ? dims[1] : 1;
    const size = realRows(step, dims[0]) * columns;
    const wanted = values.subarray(0, size);
    const magnitude = magnitudeOf(tolerance.magnitude, wanted, columns, magnitudes?.outputs.get(id));
    const { n = 1, factor = 4, eps = epsOf[tolerance.dtype ?? 'f32'] } = tolerance;
    const allowed = (i: number): number =>
      factor * Math.sqrt(n) * eps * magnitude(i) + roundingOf(wanted[i]!, dtype) * 1.001;
    const name = plan.ops.find(({ outputs }) => outputs.includes(id))!.op;
    const compared = { of: name, columns, got: got.outputs.get(id)!.subarray(0, size), expected: wanted };
    expectClose({ ...compared, tolerance: allowed }, where, { op });
  }
}

function magnitudeOf(
  kind: Tolerance['magnitude'],
  values: Float32Array,
  columns: number,
  absolute: Float32Array | undefined,
): (index: number) => number {
  if (typeof kind === 'number') return () => kind;
  if (kind === 'absolute') return (index) => Math.abs(absolute![index]!);
  const largest = new Float64Array(values.length / columns);
  values.forEach((value, i) => {
    const row = Math.floor(i / columns);
    largest[row] = Math.max(largest[row]!, Math.abs(value));
  });
  return (index) => largest[Math.floor(index / columns)]!;
}

/** Rows of a tensor that belong to real tokens, or to real logit rows. */
function realRows(step: LegalStep, dim: unknown): number {
  const { S, L } = countsOf(encodeStep({ ...step, stepId: 0 }));
  const tokens = step.sequences.reduce((sum, sequence) => sum + sequence.tokens.length, 0);
  if (dim === 'L')
    return Math.min(
      L,
      step.sequences.reduce((sum, { rows }) => sum + rows.length, 0),
    );
  return dim === 'S' ? S : tokens;
}
