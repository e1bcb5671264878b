/** Every family, on the backend and on the reference: prompts together, then steps of one token each. */
import type { ConformanceCase } from '../../case.js';
import type { Kit } from '../../kit.js';
import type { Random } from '../../random.js';
import type { TestSequence } from '../../test-sequences.js';
import { families, writeModel, type Family } from '../../tiny-model.js';
import { TinyRun } from '../../tiny-run.js';

export const vocabSize = 96;
export const tokensOf = (random: Random, count: number): number[] => random.ints(count, vocabSize);

export function referenceCases(): ConformanceCase[] {
  return families.flatMap((family) =>
    (['f32', 'bf16', 'f16'] as const).flatMap((dtype): ConformanceCase[] => [
      { name: `L3/${family.name}/${dtype}/reference`, run: (kit) => checkFamily(kit, family, dtype, true) },
      { name: `L3/${family.name}/${dtype}/unfused`, run: (kit) => checkFamily(kit, family, dtype, false) },
    ]),
  );
}

async function checkFamily(
  kit: Kit,
  family: Family,
  dtype: 'f32' | 'bf16' | 'f16',
  fused: boolean,
): Promise<void> {
  kit.requireDtype(dtype);
  const checkpoint = await writeModel(kit, family);
  const run = await TinyRun.open(kit, checkpoint, dtype, { tokens: 80, seqs: 3, length: 50 }, { fused });
  const random = kit.random();
  const giver = run.giver(random);
  const sequences = [45, 1, 20]
    .slice(0, run.limits.maxSeqs)
    .map((length) => giver.sequence(length, length + 4));
  for (let step = 0; step < 4; step++) {
    const parts = sequences.map((sequence: TestSequence) =>
      sequence.next(tokensOf(random, step === 0 ? sequence.promptLen : 1)),
    );
    const expected = run.reference(parts);
    const got = await run.run(parts);
    for (const { slot, promptLen } of sequences)
      run.expectNear(
        got.get(slot),
        expected.get(slot),
        `step ${step + 1}, the prompt of ${promptLen} tokens`,
      );
  }
  await run.close();
}
