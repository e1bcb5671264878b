/**
 * What must not change an answer, so that no oracle is needed: pieces of a prompt, shared or permuted pages, other sequences,
 * padding. Equal to the bit where the backend claims `batchInvariant`.
 */
import type { Dtype } from '../../../backend/index.js';
import { notApplicable, skip, type ConformanceCase } from '../../case.js';
import type { Kit } from '../../kit.js';
import type { LegalStep, WantedSizes } from '../../legal-steps.js';
import type { Random } from '../../random.js';
import { TestSequence } from '../../test-sequences.js';
import { familyOf, writeModel } from '../../tiny-model.js';
import { TinyRun, type SequenceRows } from '../../tiny-run.js';
import { tokensOf } from './reference.js';

type Check = (run: TinyRun, kit: Kit) => Promise<void>;

const checks: Readonly<Record<string, { readonly sizes: WantedSizes; readonly check: Check }>> = {
  'chunked-equals-whole': { sizes: { tokens: 48, seqs: 2, length: 52 }, check: chunkedEqualsWhole },
  'prefix-hit-equals-miss': {
    sizes: { tokens: 48, seqs: 2, length: 52, blockSize: 16 },
    check: hitEqualsMiss,
  },
  'any-pages': { sizes: { tokens: 40, seqs: 2, length: 44, heldSeqs: 3 }, check: anyPages },
  'padding-is-inert': { sizes: { tokens: 64, seqs: 4, length: 44 }, check: paddingIsInert },
  'any-order': { sizes: { tokens: 64, seqs: 3, length: 44 }, check: anyOrder },
  'alone-equals-together': { sizes: { tokens: 120, seqs: 4, length: 44 }, check: aloneEqualsTogether },
  'reused-pages': { sizes: { tokens: 48, seqs: 2, length: 48 }, check: reusedPages },
};

export function invariantCases(): ConformanceCase[] {
  const inType = (name: string, family: string, dtype?: Dtype): ConformanceCase => ({
    name: `L3/${family}/${name}${dtype === undefined ? '' : `/${dtype}`}`,
    run: (kit) => withRun(kit, family, checks[name]!.sizes, checks[name]!.check, dtype),
  });
  // in f32 too: roundings to 16 bits hide differences of the last place
  const cases = Object.keys(checks).flatMap((name) => [
    inType(name, 'llama'),
    inType(name, 'mistral'),
    inType(name, 'llama', 'f32'),
  ]);
  const verify = (): Promise<void> =>
    notApplicable('core has no speculative decoding yet: verify = sequential is not tested');
  return [...cases, { name: 'L3/speculation/verify-equals-sequential', run: async () => verify() }];
}

/** In the device's preferred type, if none is given. */
export async function withRun(
  kit: Kit,
  family: string,
  sizes: WantedSizes,
  check: Check,
  dtype: Dtype = kit.device.preferredDtype,
): Promise<void> {
  kit.requireDtype(dtype);
  const checkpoint = await writeModel(kit, familyOf(family));
  const run = await TinyRun.open(kit, checkpoint, dtype, sizes);
  await check(run, kit);
  await run.close();
}

/** The tokens after a prompt, given: each step's logits. */
async function decode(
  run: TinyRun,
  sequence: TestSequence,
  tokens: readonly number[],
): Promise<SequenceRows[]> {
  const rows: SequenceRows[] = [];
  for (const token of tokens) rows.push((await run.run([sequence.next([token])])).get(sequence.slot)!);
  return rows;
}

/** A prompt whole, then decode steps. */
async function whole(
  run: TinyRun,
  sequence: TestSequence,
  prompt: readonly number[],
  answer: readonly number[],
): Promise<SequenceRows[]> {
  const first = (await run.run([sequence.next(prompt)])).get(sequence.slot)!;
  return [first, ...(await decode(run, sequence, answer))];
}

function expectAllSame(
  run: TinyRun,
  got: readonly SequenceRows[],
  expected: readonly SequenceRows[],
  what: string,
): void {
  expected.forEach((rows, i) =>
    run.expectSame(got[i], rows, `${what}, ${i === 0 ? 'behind the prompt' : `decode step ${i}`}`),
  );
}

async function chunkedEqualsWhole(run: TinyRun, kit: Kit): Promise<void> {
  if (run.constraints.chunkedPrefill === false)
    skip('the device reads prompts whole (chunkedPrefill: false)');
  const random = kit.random();
  const giver = run.giver(random);
  const [prompt, answer] = [tokensOf(random, 45), tokensOf(random, 3)];
  const expected = await whole(run, giver.sequence(45, 48), prompt, answer);
  const sequence = giver.sequence(45, 48);
  for (const [begin, end] of [[0, 7], [7, 8], [8, 24], [24, 44]]) await run.run([sequence.next(prompt.slice(begin, end))]); // prettier-ignore
  const last = (await run.run([sequence.next(prompt.slice(44))])).get(sequence.slot)!;
  expectAllSame(run, [last, ...(await decode(run, sequence, answer))], expected, 'a prompt in pieces');
}

async function hitEqualsMiss(run: TinyRun, kit: Kit): Promise<void> {
  if (run.constraints.kvLayout === 'slots')
    skip('the device keeps each sequence in one piece (kvLayout: slots)');
  if (run.constraints.chunkedPrefill === false)
    skip('the device reads prompts whole (chunkedPrefill: false)');
  const random = kit.random();
  const giver = run.giver(random);
  const { blockSize } = run.limits;
  const numShared = Math.floor(44 / blockSize);
  if (numShared === 0) skip(`blocks of ${blockSize} tokens are longer than the kit's prompts`);
  const [prompt, answer] = [tokensOf(random, 45), tokensOf(random, 3)];
  const first = giver.sequence(45, 48);
  const expected = await whole(run, first, prompt, answer);
  const own = giver.sequence(45, 48);
  const blocks = [...first.blocks.slice(0, numShared), ...own.blocks.slice(numShared)];
  const second = new TestSequence(own.slot, blocks, 45, numShared * blockSize);
  const got = await whole(run, second, prompt.slice(numShared * blockSize), answer);
  expectAllSame(run, got, expected, `a prompt whose first ${numShared} blocks are another's`);
}

async function anyPages(run: TinyRun, kit: Kit): Promise<void> {
  const random = kit.random();
  const giver = run.giver(random);
  const [prompt, answer] = [tokensOf(random, 40), tokensOf(random, 4)];
  const expected = await whole(run, giver.sequence(40, 44), prompt, answer);
  const other = giver.sequence(40, 44);
  expectAllSame(
    run,
    await whole(run, other, prompt, answer),
    expected,
    'other pages and another sampler slot',
  );
  giver.giveBack(other);
  const backwards = new TestSequence(other.slot, other.blocks.toReversed(), 40);
  expectAllSame(run, await whole(run, backwards, prompt, answer), expected, 'pages in reverse order');
}

/** The same steps with more padding than they need. */
async function paddingIsInert(run: TinyRun, kit: Kit): Promise<void> {
  const random = kit.random();
  const giver = run.giver(random);
  const [prompt, answer] = [tokensOf(random, 40), tokensOf(random, 4)];
  const bystander = giver.sequence(18, 22);
  const before = await whole(run, bystander, tokensOf(random, 18), []);
  const expected = await whole(run, giver.sequence(40, 44), prompt, answer);
  const sequence = giver.sequence(40, 44);
  const got: SequenceRows[] = [];
  for (const tokens of [prompt, ...answer.map((token) => [token])]) {
    const steps = run.legal([sequence.next(tokens)]).map((step) => morePadding(run, step));
    got.push((await run.runSteps(steps)).get(sequence.slot)!);
  }
  expectAllSame(run, got, expected, 'with more padding');
  const [again] = await decode(run, new TestSequence(bystander.slot, bystander.blocks, 17, 17), [
    lastOf(run, kit),
  ]);
  run.expectSame(again, before[0], 'another sequence, after steps with padding');
}

/** The 18th token of the bystander's prompt: its step is repeated, over the same keys and values. */
function lastOf(run: TinyRun, kit: Kit): number {
  const random = kit.random();
  run.giver(random);
  tokensOf(random, 44);
  return tokensOf(random, 18).at(-1)!;
}

function morePadding({ constraints, limits }: TinyRun, step: LegalStep): LegalStep {
  const next = (buckets: readonly number[], count: number, max: number): number =>
    buckets.find((bucket) => bucket > count && bucket <= max) ?? count;
  if (step.numSeqs !== undefined)
    return { ...step, numSeqs: next(constraints.decodeBuckets ?? [], step.numSeqs, limits.maxSeqs) };
  const { numTokens = 0 } = step;
  const { tokenBuckets } = constraints;
  if (tokenBuckets.length === 0) return { ...step, numTokens: Math.min(numTokens + 5, limits.maxTokens) };
  return { ...step, numTokens: next(tokenBuckets, numTokens, limits.maxTokens) };
}

async function anyOrder(run: TinyRun, kit: Kit): Promise<void> {
  const random = kit.random();
  const prompts = [30, 5, 17].slice(0, run.limits.maxSeqs).map((length) => tokensOf(random, length));
  const answers = [1, 2, 3].map(() => prompts.map(() => random.below(96)));
  const inOrder = async (order: readonly number[]): Promise<Map<number, SequenceRows[]>> => {
    const giver = run.giver(random);
    const sequences = prompts.map((prompt) => giver.sequence(prompt.length, prompt.length + 3));
    const rows = new Map<number, SequenceRows[]>(order.map((i) => [i, []]));
    for (const tokens of [prompts, ...answers.map((step) => step.map((token) => [token]))]) {
      const result = await run.run(order.map((i) => sequences[i]!.next(tokens[i]!)));
      for (const i of order) rows.get(i)!.push(result.get(sequences[i]!.slot)!);
    }
    return rows;
  };
  const numbers = [...prompts.keys()];
  const expected = await inOrder(numbers);
  const got = await inOrder(numbers.toReversed());
  for (const i of numbers)
    expectAllSame(run, got.get(i)!, expected.get(i)!, `sequence ${i} of a batch in reverse order`);
}

async function aloneEqualsTogether(run: TinyRun, kit: Kit): Promise<void> {
  const random = kit.random();
  const giver = run.giver(random);
  const [prompt, answer] = [tokensOf(random, 23), tokensOf(random, 3)];
  const single = giver.sequence(23, 26);
  const expected = await whole(run, single, prompt, answer);
  giver.giveBack(single);
  const lengths = [23, 40, 2, 33].slice(0, run.limits.maxSeqs);
  const sequences = lengths.map((length) => giver.sequence(length, length + 3));
  const [first] = sequences as [TestSequence];
  const got: SequenceRows[] = [];
  for (let step = 0; step <= answer.length; step++) {
    const parts = sequences.map((sequence, i) => {
      const count = step === 0 ? sequence.promptLen : 1;
      return sequence.next(i > 0 ? tokensOf(random, count) : step === 0 ? prompt : [answer[step - 1]!]);
    });
    got.push((await run.run(parts)).get(first.slot)!);
  }
  expectAllSame(run, got, expected, `in a batch of ${lengths.length}`);
}

/** A short sequence in the pages of a longer one, whose keys and values are still behind its own. */
async function reusedPages(run: TinyRun, kit: Kit): Promise<void> {
  const random = kit.random();
  const giver = run.giver(random);
  const [prompt, answer] = [tokensOf(random, 18), tokensOf(random, 4)];
  const expected = await whole(run, giver.sequence(18, 22), prompt, answer);
  const { blocks, slot } = await left(run, giver.sequence(44, 48), random);
  const reused = new TestSequence(slot, blocks, 18);
  expectAllSame(
    run,
    await whole(run, reused, prompt, answer),
    expected,
    'in pages that another sequence has left',
  );
}

/** A sequence that has been computed to its end. */
async function left(run: TinyRun, sequence: TestSequence, random: Random): Promise<TestSequence> {
  await whole(run, sequence, tokensOf(random, 44), tokensOf(random, 4));
  return sequence;
}
