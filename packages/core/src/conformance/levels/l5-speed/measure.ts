/** How long an op takes: the difference between a program that has it many times and one that has it once. */
import type { OpName } from '../../../backend/index.js';
import { skip } from '../../case.js';
import { negotiated } from '../../check-op.js';
import type { Kit } from '../../kit.js';
import { legalSteps, limitsFor, type LegalStep } from '../../legal-steps.js';
import { OpProgram } from '../../op-program.js';
import type { PlainSequence } from '../../plain-step.js';
import { StepRunner } from '../../step-runner.js';
import { BlockGiver } from '../../test-sequences.js';

export interface Workload {
  readonly op: OpName;
  readonly shape: string;
  /** Records the op `times` times. Its last value is no output: only time is wanted. */
  readonly record: (program: OpProgram, times: number) => void;
  /** Of one op. */
  readonly bytes: number;
  readonly flops: number;
  readonly vocabSize?: number;
  readonly seqs: number;
  /** Tokens of a prompt, then perhaps those of the steps that are measured. */
  readonly tokens: number;
  /** Whether steps of one token per sequence are measured, instead of the prompts. */
  readonly decodes?: boolean;
}

const repeats = 7;

/** Microseconds of one op. */
export async function measure(kit: Kit, workload: Workload): Promise<number> {
  const one = await stepMicroseconds(kit, workload, 1);
  const many = await stepMicroseconds(kit, workload, 1 + repeats);
  const microseconds = (many - one) / repeats;
  if (microseconds <= 0)
    skip(`too fast to be measured: ${Math.round(many)} µs eight times, ${Math.round(one)} µs once`);
  return microseconds;
}

/** The shortest of several runs of the step. */
async function stepMicroseconds(kit: Kit, workload: Workload, times: number): Promise<number> {
  const group = await kit.group();
  const program = new OpProgram(kit.device.preferredDtype, kit.random(), workload.vocabSize);
  workload.record(program, times);
  const { tokens, seqs, op } = workload;
  const limits = limitsFor(
    group.constraints,
    { tokens: tokens * seqs, seqs, length: tokens + 12 },
    program.vocabSize,
  );
  const { plan } = await negotiated(group, program.finish(), limits, op);
  const giver = new BlockGiver(plan.limits, program.random);
  const sequences = Array.from({ length: Math.min(seqs, plan.limits.maxSeqs) }, () =>
    giver.sequence(tokens, tokens + 12),
  );
  const ids = (count: number): number[] => program.random.ints(count, program.vocabSize);
  const legal = (parts: PlainSequence[]): LegalStep[] => legalSteps(parts, group.constraints, plan.limits);
  const runner = await StepRunner.load(group, plan, program.weights.write(kit.file('speed.safetensors')));
  const prompts = legal(sequences.map((sequence) => sequence.next(ids(tokens))));
  await runner.runAll(prompts);
  const measured =
    workload.decodes === true ? legal(sequences.map((sequence) => sequence.next(ids(1)))) : prompts;
  const best = await fastest(runner, measured);
  await runner.close();
  return best;
}

async function fastest(runner: StepRunner, steps: readonly LegalStep[]): Promise<number> {
  let best = Infinity;
  const deadline = performance.now() + 250;
  for (let run = 0; run < 30 && (run < 3 || performance.now() < deadline); run++) {
    const begin = performance.now();
    await runner.runAll(steps);
    best = Math.min(best, performance.now() - begin);
  }
  return 1000 * best;
}
