import type { DeviceGroup } from '../../../backend/index.js';
import { lower } from '../../../program/lower.js';
import type { Kit } from '../../kit.js';
import { legalSteps, limitsFor, type LegalStep } from '../../legal-steps.js';
import { OpProgram } from '../../op-program.js';
import { StepRunner } from '../../step-runner.js';
import { BlockGiver } from '../../test-sequences.js';
import { recordAttention, type AttentionCase } from '../l2-ops/attention.js';

export interface TinyLoad {
  readonly runner: StepRunner;
  readonly step: LegalStep;
}

/** Loads a small program with weights, workspace and cache, again and again; the step uses all three. */
export async function tinyLoad(
  kit: Kit,
  shape: AttentionCase = { numHeads: 8, numKvHeads: 8, headDim: 32 },
): Promise<(group: DeviceGroup, numBlocks?: number) => Promise<TinyLoad>> {
  const dtype = kit.device.preferredDtype;
  const program = new OpProgram(dtype, kit.random('tiny'), 256);
  program.g.output(recordAttention(program, shape, dtype));
  const weights = program.weights.write(kit.file('tiny.safetensors'));
  const recorded = program.finish();
  return async (group, numBlocks) => {
    const limits = limitsFor(group.constraints, { tokens: 32, seqs: 4, length: 64 }, program.vocabSize);
    const lowered = lower(recorded, limits, { tokenBuckets: group.constraints.tokenBuckets });
    const random = kit.random('steps');
    const sequence = new BlockGiver(lowered.limits, random).sequence(30);
    const [step] = legalSteps(
      [sequence.next(random.ints(30, program.vocabSize))],
      group.constraints,
      lowered.limits,
    );
    const plan = {
      ...lowered,
      limits: { ...lowered.limits, numBlocks: numBlocks ?? lowered.limits.numBlocks },
    };
    return { runner: await StepRunner.load(group, plan, weights), step: step! };
  };
}
