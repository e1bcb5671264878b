/** A tiny model on the backend and on the reference, driven by steps made by hand; its logits are what is compared. */
import { ops, type DeviceGroup, type Dtype, type Plan, type PlanLimits } from '../backend/index.js';
import { buildPlan } from '../program/build-plan.js';
import type { Checkpoint } from '../weights/checkpoint.js';
import { expectClose } from './compare.js';
import type { Kit } from './kit.js';
import { legalSteps, limitsFor, type LegalStep, type WantedSizes } from './legal-steps.js';
import type { PlainSequence } from './plain-step.js';
import type { Random } from './random.js';
import { ReferenceRunner } from './reference-runner.js';
import { StepRunner, type RunnerOptions, type StepResult } from './step-runner.js';
import { BlockGiver } from './test-sequences.js';

/** What a sequence's logit rows gave in a step. */
export interface SequenceRows {
  /** [vocabSize] each. */
  readonly logits: readonly Float32Array[];
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
}

/** By sampler slot. */
export type RowsBySlot = ReadonlyMap<number, SequenceRows>;

/**
 * What logits may be off by, relative to the largest of their row. In f32 roundings differ in the last place and travel through
 * a few small layers: some hundred eps. In 16-bit types a rounding to a neighbour is half an eps, in several places of each layer.
 */
export const logitTolerance: Readonly<Partial<Record<Dtype, number>>> = { f32: 1e-4, bf16: 0.04, f16: 0.005 };

export interface TinyRunOptions extends RunnerOptions {
  /** False: fused ops run as their parts. */
  readonly fused?: boolean;
}

export class TinyRun {
  readonly plan: Plan;
  readonly batchInvariant: boolean;
  readonly dtype: Dtype;
  readonly #group: DeviceGroup;
  readonly #runner: StepRunner;
  readonly #reference: ReferenceRunner;
  readonly #logits: number;

  private constructor(
    plan: Plan,
    batchInvariant: boolean,
    dtype: Dtype,
    group: DeviceGroup,
    runner: StepRunner,
    reference: ReferenceRunner,
  ) {
    this.plan = plan;
    this.batchInvariant = batchInvariant;
    this.dtype = dtype;
    this.#group = group;
    this.#runner = runner;
    this.#reference = reference;
    this.#logits = logitsOf(plan);
  }

  static async open(
    kit: Kit,
    checkpoint: Checkpoint,
    dtype: Dtype,
    sizes: WantedSizes,
    { fused = true, ...options }: TinyRunOptions = {},
  ): Promise<TinyRun> {
    kit.requireDtype(dtype);
    const group = await kit.group();
    const limits = limitsFor(group.constraints, sizes, checkpoint.config.vocabSize);
    const planner = fused ? group : withoutFusion(group);
    const built = await buildPlan(checkpoint.config, dtype, planner, limits, checkpoint.locations);
    const plan = withLogits(built.plan);
    const runner = await StepRunner.load(group, plan, checkpoint, options);
    const reference = await ReferenceRunner.load(plan, checkpoint);
    return new TinyRun(plan, built.negotiation.batchInvariant, dtype, group, runner, reference);
  }

  get limits(): PlanLimits {
    return this.plan.limits;
  }

  get runner(): StepRunner {
    return this.#runner;
  }

  get constraints(): DeviceGroup['constraints'] {
    return this.#group.constraints;
  }

  giver(random: Random): BlockGiver {
    return new BlockGiver(this.limits, random);
  }

  legal(parts: readonly PlainSequence[]): LegalStep[] {
    return legalSteps(parts, this.constraints, this.limits);
  }

  /** Runs the parts, in one step if the device takes them so. */
  async run(parts: readonly PlainSequence[]): Promise<RowsBySlot> {
    return this.runSteps(this.legal(parts));
  }

  async runSteps(steps: readonly LegalStep[]): Promise<RowsBySlot> {
    return this.rowsOf(steps, await this.#runner.runAll(steps));
  }

  /** What the reference says about the same parts. */
  reference(parts: readonly PlainSequence[]): RowsBySlot {
    const steps = this.legal(parts);
    return this.rowsOf(steps, steps.map((step) => this.#reference.run(step))); // prettier-ignore
  }

  rowsOf(steps: readonly LegalStep[], results: readonly StepResult[]): RowsBySlot {
    const rows = new Map<number, SequenceRows>();
    const { vocabSize } = this.limits;
    steps.forEach(({ sequences }, i) => {
      const { outputs, tokens, logprobs } = results[i]!;
      const logits = outputs.get(this.#logits)!;
      let row = 0;
      for (const { slot, rows: { length } } of sequences) {
        const range = Array.from({ length }, (_, j) => row + j);
        rows.set(slot, {
          logits: range.map((r) => logits.slice(r * vocabSize, (r + 1) * vocabSize)),
          tokens: range.map((r) => tokens[r]!),
          logprobs: range.map((r) => logprobs[r]!),
        });
        row += length;
      }
    }); // prettier-ignore
    return rows;
  }

  /** The last row's logits: equal where results do not depend on the batch, else nearly so. */
  expectSame(got: SequenceRows | undefined, expected: SequenceRows | undefined, where: string): void {
    this.#compare(got, expected, this.batchInvariant ? 0 : logitTolerance[this.dtype]!, where);
  }

  expectNear(got: SequenceRows | undefined, expected: SequenceRows | undefined, where: string): void {
    this.#compare(got, expected, logitTolerance[this.dtype]!, where);
  }

  #compare(
    got: SequenceRows | undefined,
    expected: SequenceRows | undefined,
    relative: number,
    where: string,
  ): void {
    const [a, b] = [got?.logits.at(-1), expected!.logits.at(-1)!];
    const largest = b.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    const promise = relative === 0 ? ' (batchInvariant is claimed)' : '';
    const compared = {
      of: 'logits',
      columns: b.length,
      got: a ?? [],
      expected: b,
      tolerance: () => relative * largest,
    };
    expectClose(compared, where + promise);
  }

  async close(): Promise<void> {
    await this.#runner.close();
  }
}

/** The group as one that has no fused kernels. */
const withoutFusion = (group: DeviceGroup): Pick<DeviceGroup, 'negotiate' | 'constraints'> => ({
  constraints: group.constraints,
  async negotiate(request) {
    const { answers, batchInvariant } = await group.negotiate(request);
    const declined = { support: 'decompose', kernel: '', reason: 'the case runs their parts' } as const;
    const isFused = (i: number): boolean => ops[request.ops[i]!.op].fused;
    return { batchInvariant, answers: answers.map((answer, i) => (isFused(i) ? declined : answer)) };
  },
});

const logitsOf = (plan: Plan): number => plan.ops.find(({ op }) => op === 'sample')!.inputs[0]!;

/** The plan with its logits in the result. */
function withLogits(plan: Plan): Plan {
  const logits = logitsOf(plan);
  const tensors = plan.tensors.map((tensor, id) =>
    id === logits ? { kind: 'output' as const, dtype: tensor.dtype, dims: tensor.dims } : tensor,
  );
  return { ...plan, tensors: tensors as Plan['tensors'] };
}
