/** What negotiation says about all ops of the models there are: answers that the contract allows, the same each time. */
import { opNames, type Dtype, type OpName } from '../../../backend/index.js';
import { fuse } from '../../../program/fuse.js';
import { signatureOf, type OpSignature } from '../../../program/signature.js';
import { recordModel } from '../../../models/registry.js';
import { check, fail, type ConformanceCase } from '../../case.js';
import { checkAnswer } from '../../check-op.js';
import type { Kit } from '../../kit.js';
import { families } from '../../tiny-model.js';

export function claimCases(): ConformanceCase[] {
  const cases: readonly [string, (kit: Kit) => Promise<void>][] = [
    ['answers', answersAreComplete],
    ['same-answers', answersAreRepeated],
    ['models-can-run', everyModelRuns],
  ];
  return cases.map(([name, run]) => ({ name: `L2/negotiate/${name}`, run }));
}

/** The ops of all families, fused and not. */
function modelSignatures(dtype: Dtype): OpSignature[] {
  return families.flatMap(({ config }) => {
    const program = recordModel(config, dtype);
    return [program, fuse(program, () => true)].flatMap((each) =>
      each.ops.map((op) => signatureOf(each, op)),
    );
  });
}

async function answersAreComplete(kit: Kit): Promise<void> {
  const group = await kit.group();
  const asked = modelSignatures(kit.device.preferredDtype);
  const { answers, batchInvariant } = await group.negotiate({ ops: asked });
  check(
    typeof batchInvariant === 'boolean',
    `batchInvariant is ${String(batchInvariant)}; expected true or false`,
  );
  check(answers.length === asked.length, `${answers.length} answers for ${asked.length} ops`);
  answers.forEach((answer, i) => checkAnswer(asked[i]!.op, answer));
  const unasked = opNames.filter((name) => !asked.some(({ op }) => op === name));
  await askStrangeOps(kit, unasked);
}

/** Ops with attributes that no kernel has: refused with a reason, not claimed and not thrown. */
async function askStrangeOps(kit: Kit, more: readonly OpName[]): Promise<void> {
  const group = await kit.group();
  const attention = {
    layer: 0,
    numHeads: 7,
    numKvHeads: 7,
    headDim: 4099,
    scale: 1,
    slidingWindow: 0,
    softCap: 0,
  };
  const { preferredDtype: dtype } = kit.device;
  const strange: OpSignature[] = [
    { op: 'attention', attrs: attention, dtypes: [dtype, 'state', dtype] },
    ...more
      .filter((op) => op !== 'kv_write')
      .map((op) => ({ op, attrs: { size: 2 }, dtypes: ['f32', 'f32'] as const })),
  ];
  const { answers } = await group.negotiate({ ops: strange });
  answers.forEach((answer, i) => checkAnswer(strange[i]!.op, answer));
}

async function answersAreRepeated(kit: Kit): Promise<void> {
  const group = await kit.group();
  const asked = modelSignatures(kit.device.preferredDtype).slice(0, 12);
  const [first, second] = [
    await group.negotiate({ ops: asked }),
    await group.negotiate({ ops: asked.toReversed() }),
  ];
  asked.forEach(({ op }, i) => {
    const [a, b] = [first.answers[i]!, second.answers.at(-1 - i)!];
    if (a.support !== b.support)
      fail(`${op} is ${a.support}, and ${b.support} when asked again in another order`, { op });
  });
}

/** Unfused, every op that models need is native in the preferred type: there is nothing smaller to run in its stead. */
async function everyModelRuns(kit: Kit): Promise<void> {
  const group = await kit.group();
  for (const { name, config } of families) {
    const program = recordModel(config, kit.device.preferredDtype);
    const asked = program.ops.map((op) => signatureOf(program, op));
    const { answers } = await group.negotiate({ ops: asked });
    answers.forEach(({ support, reason }, i) => {
      const { op } = asked[i]!;
      if (support !== 'native') fail(`${name} models cannot run: ${op} is ${support}: ${reason}`, { op });
    });
  }
}
