/** The whole cache in use: nothing is written but the slots that a step names, whatever its padding. */
import type { ConformanceCase } from '../../case.js';
import { compareOutputs, negotiated } from '../../check-op.js';
import type { Kit } from '../../kit.js';
import { legalSteps, limitsFor, type LegalStep } from '../../legal-steps.js';
import { OpProgram } from '../../op-program.js';
import { ReferenceRunner, withUnroundedOutputs } from '../../reference-runner.js';
import { StepRunner } from '../../step-runner.js';
import { BlockGiver } from '../../test-sequences.js';
import { attentionTolerance, recordAttention } from '../l2-ops/attention.js';

export function kvSlotCases(): ConformanceCase[] {
  return [{ name: 'L1/kv_write/only-named-slots', op: 'kv_write', run: onlyNamedSlots }];
}

/**
 * Two layers, and sequences that own every block up to its last slot but a few. Each then grows, and its attention to all of
 * its keys and values tells whether any was written to.
 */
async function onlyNamedSlots(kit: Kit): Promise<void> {
  const group = await kit.group();
  const dtype = kit.device.preferredDtype;
  const program = new OpProgram(dtype, kit.random());
  const shape = { numHeads: 4, numKvHeads: 2, headDim: 16 };
  for (const _ of ['first layer', 'second layer'])
    program.g.output(recordAttention(program, shape, dtype, 0.3));
  const [unit] = group.constraints.blockSizes;
  const length = 2 * unit!;
  const sizes = { tokens: length, seqs: 3, length };
  const wanted = limitsFor(group.constraints, sizes, program.vocabSize);
  const numSeqs = Math.min(3, wanted.maxSeqs);
  const perSeq = Math.ceil(length / wanted.blockSize);
  const { plan } = await negotiated(
    group,
    program.finish(),
    { ...wanted, numBlocks: perSeq * numSeqs },
    'kv_write',
  );
  const giver = new BlockGiver(plan.limits, program.random);
  const prompt = Math.min(length, plan.limits.maxTokens) - 4;
  const sequences = Array.from({ length: numSeqs }, () => giver.sequence(prompt, length));
  const tokens = (count: number): number[] => program.random.ints(count, program.vocabSize);
  const legal = (part: ReturnType<(typeof sequences)[number]['next']>): LegalStep[] => legalSteps([part], group.constraints, plan.limits).map((step) => withPadding(step, plan.limits.maxTokens)); // prettier-ignore
  const prompts = sequences.flatMap((sequence) => legal(sequence.next(tokens(prompt))));
  const growth = [1, 2, 3, 4].flatMap(() => sequences.flatMap((sequence) => legal(sequence.next(tokens(1)))));
  const steps = [...prompts, ...growth];
  const weights = program.weights.write(kit.file('slots.safetensors'));
  const reference = await ReferenceRunner.load(withUnroundedOutputs(plan), weights);
  const runner = await StepRunner.load(group, plan, weights);
  for (const [i, step] of steps.entries()) {
    const spec = { op: 'kv_write', tolerance: attentionTolerance(dtype) } as const;
    compareOutputs(spec, plan, step, await runner.enqueue(step), reference.run(step), undefined, `step ${i + 1} of ${steps.length}`); // prettier-ignore
  }
  await runner.close();
}

/** A few rows of padding more, where the device takes any number of tokens. */
function withPadding(step: LegalStep, maxTokens: number): LegalStep {
  const numTokens = step.sequences.reduce((sum, sequence) => sum + sequence.tokens.length, 0);
  if (step.numSeqs !== undefined || step.numTokens !== numTokens) return step;
  return { ...step, numTokens: Math.min(numTokens + 3, maxTokens) };
}
