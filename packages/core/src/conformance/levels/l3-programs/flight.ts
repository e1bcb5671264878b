/** Steps in flight together, and recorded steps: the same answers as one step after another, each made anew. */
import { fail, notApplicable, type ConformanceCase } from '../../case.js';
import type { Kit } from '../../kit.js';
import type { LegalStep } from '../../legal-steps.js';
import type { PlainSequence } from '../../plain-step.js';
import type { StepResult } from '../../step-runner.js';
import type { TestSequence } from '../../test-sequences.js';
import { familyOf, writeModel } from '../../tiny-model.js';
import { TinyRun } from '../../tiny-run.js';
import { tokensOf } from './reference.js';

export function flightCases(): ConformanceCase[] {
  return ['llama', 'qwen3'].flatMap((family): ConformanceCase[] => [
    { name: `L3/${family}/steps-in-flight`, run: (kit) => stepsInFlight(kit, family) },
    { name: `L3/${family}/capture-equals-eager`, run: (kit) => captureEqualsEager(kit, family) },
  ]);
}

const sizes = { tokens: 60, seqs: 4, length: 60 };

/** Prompts, then steps whose tokens are still on the device, of batches that change from one to the next. */
function plannedSteps(run: TinyRun, kit: Kit): LegalStep[] {
  const random = kit.random();
  const giver = run.giver(random);
  const lengths = [25, 4, 13, 1].slice(0, run.limits.maxSeqs);
  const sequences = lengths.map((length) => giver.sequence(length, length + 14));
  const prompts = sequences.flatMap((sequence) =>
    run.legal([sequence.next(tokensOf(random, sequence.promptLen))]),
  );
  const numSeqs = sequences.length;
  const rotated = (step: number): TestSequence[] =>
    sequences.map((_, i) => sequences[(i + step) % numSeqs]!).slice(0, 1 + (Math.floor(step / 3) % numSeqs));
  const decodes = Array.from({ length: 14 }, (_, step) => {
    const sampling = { token: 0, mode: 1, temperature: 0.8, seed: BigInt(step * 7919 + 1), numLogprobs: 0 };
    return run.legal(rotated(step).map((sequence): PlainSequence => sequence.next([-1], [sampling])));
  });
  return [...prompts, ...decodes.flat()];
}

async function stepsInFlight(kit: Kit, family: string): Promise<void> {
  const checkpoint = await writeModel(kit, familyOf(family));
  const run = await TinyRun.open(kit, checkpoint, kit.device.preferredDtype, sizes);
  const { stepsInFlight: depth } = run.constraints;
  if (depth < 2) notApplicable('the device has one step in flight at a time (stepsInFlight: 1)');
  const steps = plannedSteps(run, kit);
  const expected = await run.runner.runAll(steps);
  for (let round = 1; round <= 3; round++)
    compareSteps(
      run,
      steps,
      await inFlight(run, steps, depth),
      expected,
      `round ${round}, ${depth} steps in flight`,
    );
  await run.close();
}

/** Enqueues each step as soon as one fewer than `depth` are in flight. */
async function inFlight(run: TinyRun, steps: readonly LegalStep[], depth: number): Promise<StepResult[]> {
  const results: Promise<StepResult>[] = [];
  for (const [i, step] of steps.entries()) {
    if (i >= depth) await results[i - depth];
    const result = run.runner.enqueue(step);
    // a later failure is awaited below
    result.catch(() => {});
    results.push(result);
  }
  return Promise.all(results);
}

function compareSteps(
  run: TinyRun,
  steps: readonly LegalStep[],
  got: readonly StepResult[],
  expected: readonly StepResult[],
  what: string,
): void {
  steps.forEach((step, i) => {
    const [a, b] = [run.rowsOf([step], [got[i]!]), run.rowsOf([step], [expected[i]!])];
    for (const { slot } of step.sequences) {
      run.expectSame(a.get(slot), b.get(slot), `${what}: step ${i + 1}, slot ${slot}`);
      const [token, wanted] = [a.get(slot)!.tokens.at(-1), b.get(slot)!.tokens.at(-1)];
      if (token !== wanted && run.batchInvariant)
        fail(`${what}: step ${i + 1}, slot ${slot}: token ${token}; expected ${wanted}`);
    }
  });
}

/**
 * The same steps with and without capture keys. Recurring shapes come with other sequences, lengths, blocks, tokens, seeds:
 * what a replay does not read anew shows.
 */
async function captureEqualsEager(kit: Kit, family: string): Promise<void> {
  const { constraints } = await kit.group();
  if (constraints.capture !== true)
    notApplicable('the device does not ask for capture keys (capture: false)');
  const checkpoint = await writeModel(kit, familyOf(family));
  const dtype = kit.device.preferredDtype;
  const eager = await TinyRun.open(kit, checkpoint, dtype, sizes, { capture: false });
  const steps = plannedSteps(eager, kit);
  const expected = await eager.runner.runAll(steps);
  await eager.close();
  const captured = await TinyRun.open(kit, checkpoint, dtype, sizes, { capture: true });
  for (const round of [1, 2])
    compareSteps(
      captured,
      steps,
      await captured.runner.runAll(steps),
      expected,
      `with capture keys, round ${round}`,
    );
  await captured.close();
}
