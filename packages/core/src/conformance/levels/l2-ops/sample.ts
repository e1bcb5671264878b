/** Sampling against its definition (program/reference/sample.ts): the whole space of parameters, its edges, histories. */
import { rowMode, type Dtype } from '../../../backend/index.js';
import type { Value } from '../../../program/graph-builder.js';
import { fail, type ConformanceCase } from '../../case.js';
import { negotiated } from '../../check-op.js';
import type { Kit } from '../../kit.js';
import { legalSteps, limitsFor } from '../../legal-steps.js';
import { OpProgram } from '../../op-program.js';
import type { PlainRow, PlainSequence } from '../../plain-step.js';
import type { Random } from '../../random.js';
import { ReferenceRunner } from '../../reference-runner.js';
import { StepRunner, type StepResult } from '../../step-runner.js';
import { BlockGiver } from '../../test-sequences.js';
import { randomRow } from './random-rows.js';

const op = 'sample';

interface SampleCheck {
  readonly dtype: Dtype;
  readonly vocabSize: number;
  /** f32 [T, vocabSize]. */
  readonly logits: (program: OpProgram) => Value;
  readonly numSeqs: number;
  readonly numSteps: number;
  /** Parameters of a sequence's row in a step; the prompt is step 0. */
  readonly rowOf: (seq: number, step: number, random: Random) => Omit<PlainRow, 'token'>;
  readonly prompts?: readonly (readonly number[])[];
}

/** Prompts, then steps whose tokens are those sampled last; every sequence's tokens so far are tracked. */
async function checkSample(kit: Kit, spec: SampleCheck): Promise<void> {
  kit.requireDtype(spec.dtype);
  const group = await kit.group();
  const random = kit.random();
  const program = new OpProgram(spec.dtype, random, spec.vocabSize);
  const { g } = program;
  g.sample(spec.logits(program));
  const sizes = { tokens: 6 * spec.numSeqs, seqs: spec.numSeqs, length: 6 + spec.numSteps };
  const { plan } = await negotiated(
    group,
    program.finish(),
    limitsFor(group.constraints, sizes, spec.vocabSize),
    op,
  );
  const giver = new BlockGiver(plan.limits, random);
  const numSeqs = Math.min(spec.numSeqs, plan.limits.maxSeqs);
  const prompts = Array.from({ length: numSeqs }, (_, seq) => spec.prompts?.[seq] ?? random.ints(1 + random.below(5), spec.vocabSize)); // prettier-ignore
  const sequences = prompts.map((prompt) => giver.sequence(prompt.length, prompt.length + spec.numSteps));
  const weights = program.weights.write(kit.file('sample.safetensors'));
  const reference = await ReferenceRunner.load(plan, weights);
  const runner = await StepRunner.load(group, plan, weights);
  /** What each sequence goes on with: the token sampled last, if its last row sampled any. */
  const nextTokens = prompts.map(() => 0);
  for (let step = 0; step < spec.numSteps; step++) {
    const parts = sequences.map((sequence, seq): PlainSequence => {
      const tokens = step === 0 ? prompts[seq]! : [nextTokens[seq]!];
      const row = { ...spec.rowOf(seq, step, random), token: tokens.length - 1 };
      nextTokens[seq] = (row.mode! & rowMode.sample) !== 0 ? -1 : 0;
      const part = sequence.next(tokens, [row]);
      return step === 0 ? { ...part, history: tokens } : part;
    });
    for (const legal of legalSteps(parts, group.constraints, plan.limits)) {
      const numRows = legal.sequences.length;
      compareSamples(
        await runner.enqueue(legal),
        reference.run(legal),
        legal.sequences,
        numRows,
        `step ${step}`,
      );
    }
  }
  await runner.close();
}

function compareSamples(
  got: StepResult,
  expected: StepResult,
  sequences: readonly PlainSequence[],
  numRows: number,
  where: string,
): void {
  for (let row = 0; row < numRows; row++) {
    const parameters = JSON.stringify(sequences[row]!.rows[0], (_, value: unknown) =>
      typeof value === 'bigint' ? String(value) : value,
    );
    const differs = (what: string, a: unknown, b: unknown): never =>
      fail(`${where}, row ${row}: ${what} is ${String(a)}; expected ${String(b)}; the row: ${parameters}`, {
        op,
      });
    if (got.tokens[row] !== expected.tokens[row]) differs('the token', got.tokens[row], expected.tokens[row]);
    if (got.ranks[row] !== expected.ranks[row]) differs('the rank', got.ranks[row], expected.ranks[row]);
    if (!near(got.logprobs[row]!, expected.logprobs[row]!))
      differs('the logprob', got.logprobs[row], expected.logprobs[row]);
    if (String(got.topIds[row]) !== String(expected.topIds[row]))
      differs('the top list', got.topIds[row], expected.topIds[row]);
    const wrong = expected.topLogprobs[row]!.findIndex((value, i) => !near(got.topLogprobs[row]![i]!, value));
    if (wrong >= 0)
      differs(`top logprob ${wrong}`, got.topLogprobs[row]![wrong], expected.topLogprobs[row]![wrong]);
  }
}

/** Equal, or within the rounding of a sum of exponentials. */
const near = (a: number, b: number): boolean => a === b || Math.abs(a - b) <= 1e-5 * Math.max(1, Math.abs(b));

/** Each token id below `numRows` chooses a row of logits; they are columns of a matrix, picked by one-hot vectors. */
function chosenLogits(numRows: number, values: (random: Random, vocabSize: number) => Float32Array) {
  return (p: OpProgram): Value => {
    const oneHot = new Float32Array(p.vocabSize * numRows);
    for (let i = 0; i < p.vocabSize; i++) oneHot[i * numRows + (i % numRows)] = 1;
    const x = p.table(numRows, oneHot, p.g.dtype);
    const weight = p.matrix('logits', p.vocabSize, numRows, values(p.random, p.vocabSize * numRows));
    return p.g.linear(p.g.gatherRows(x, p.g.input('logitRows')), weight);
  };
}

const modelLike = chosenLogits(4, (random, size) => {
  const scale = random.pick([0.1, 2, 6]);
  return Float32Array.from({ length: size }, () => random.normal() * scale - 3 * random.uniform());
});
/** Few distinct values: the order among equals shows. */
const tied = chosenLogits(4, (random, size) =>
  Float32Array.from({ length: size }, () => random.below(5) * 0.5),
);

const sampled = (
  row: Omit<PlainRow, 'token' | 'mode'>,
  mode: number = rowMode.sample,
): Omit<PlainRow, 'token'> => ({
  ...row,
  mode,
});
const processed = rowMode.sample | rowMode.processedLogprobs;

function sampleCase(
  name: string,
  spec: Omit<SampleCheck, 'dtype'>,
  dtypes: readonly Dtype[] = ['f32', 'bf16'],
): ConformanceCase[] {
  return dtypes.map((dtype) => ({
    name: `L2/sample/${dtype}/${name}`,
    op,
    run: (kit) => checkSample(kit, { ...spec, dtype }),
  }));
}

export function sampleCases(): ConformanceCase[] {
  return [...randomCases(), ...edgeCases(), ...historyCases(), ...oddCases()];
}

function randomCases(): ConformanceCase[] {
  return [1, 2, 15, 16, 17, 63, 100, 2047, 2049].flatMap((vocabSize) =>
    [modelLike, tied].flatMap((logits, i) =>
      sampleCase(`random,vocab=${vocabSize},${i === 0 ? 'model-like' : 'ties'}`, {
        vocabSize,
        logits,
        numSeqs: 8,
        numSteps: 4,
        rowOf: (_, __, random) => randomRow(random, vocabSize),
      }),
    ),
  );
}

/** Where an inequality decides. */
function edgeCases(): ConformanceCase[] {
  const vocabSize = 16;
  const equal = chosenLogits(2, (_, size) => new Float32Array(size).fill(0.25));
  const base = { vocabSize, logits: equal, numSeqs: 8, numSteps: 3 };
  const seeded = (seq: number, step: number): bigint => BigInt(seq * 1_000_003 + step) << 17n;
  return [
    ...sampleCase('greedy-takes-the-lowest-of-equals', { ...base, rowOf: () => sampled({}, rowMode.sample | rowMode.greedy) }),
    ...sampleCase('top-p-keeps-what-reaches-it', {
      ...base,
      rowOf: (seq, step) => sampled({ topP: [0.5, 0.25, 1 / 16, 0.75][seq % 4]!, seed: seeded(seq, step), numLogprobs: 16 }, processed), // prettier-ignore
    }),
    ...sampleCase('top-k-keeps-ties', {
      ...base,
      logits: tied,
      rowOf: (seq, step) => sampled({ topK: 1 + (seq % 5), seed: seeded(seq, step), numLogprobs: 16 }, processed),
    }),
    ...sampleCase('min-p-keeps-what-equals-it', {
      ...base,
      rowOf: (seq, step) => sampled({ minP: [1, 0.5][seq % 2]!, seed: seeded(seq, step), numLogprobs: 16 }, processed),
    }),
    ...sampleCase('noise-follows-seed-and-position', {
      ...base,
      rowOf: (seq, step) => sampled({ seed: seeded(seq % 4, 0) + BigInt(step % 2) * (1n << 40n) }),
    }),
    ...sampleCase('logprobs-are-raw-unless-asked', {
      ...base,
      logits: modelLike,
      rowOf: (seq) => sampled({ temperature: 0.5, topK: 3, bias: [[3, 2.5]], numLogprobs: 5 }, seq % 2 === 0 ? rowMode.sample : processed),
    }),
    ...sampleCase('scores-of-targets', {
      ...base,
      logits: modelLike,
      rowOf: (seq) => sampled({ target: seq, numLogprobs: seq % 3 }, rowMode.sample | rowMode.target),
    }),
    ...sampleCase('allowed-suppressed-and-biased', {
      ...base,
      logits: modelLike,
      rowOf: (seq) => sampled({
        allowed: seq % 2 === 0 ? [1, 3, 5, 7] : [],
        suppress: [3, 5, 14],
        bias: [[1, -4], [9, 3], [9, 0.5]],
        numLogprobs: 6,
      }, processed),
    }),
  ]; // prettier-ignore
}

/** Penalties and bad words, of a prompt and of what the device has sampled since. */
function historyCases(): ConformanceCase[] {
  const base = { vocabSize: 6, logits: modelLike, numSeqs: 6, numSteps: 8 };
  const penalties: Omit<PlainRow, 'token'>[] = [
    { repetitionPenalty: 1.5 },
    { presencePenalty: 0.75 },
    { frequencyPenalty: 0.5 },
    { frequencyPenalty: -0.5, presencePenalty: 0.25, repetitionPenalty: 0.8 },
  ];
  return [
    ...sampleCase('penalties', {
      ...base,
      rowOf: (seq) => sampled({ ...penalties[seq % 4]!, numLogprobs: 6 }, processed | (seq > 3 ? rowMode.greedy : 0)),
    }),
    ...sampleCase('bad-words', {
      ...base,
      rowOf: (seq) => sampled({ badWords: [[seq % 6], [0, 1], [2, 3], [1, 1], [4, 5, 0]], numLogprobs: 6 }, processed),
    }),
  ]; // prettier-ignore
}

/** What must not crash, and has one answer: infinities, NaN, the largest and the smallest numbers. */
function oddCases(): ConformanceCase[] {
  const vocabSize = 24;
  const rows: readonly ((i: number) => number)[] = [
    () => Number.NaN,
    () => -Infinity,
    (i) => (i === 1 ? -Infinity : Number.NaN),
    (i) => (i === 23 ? -1e30 : -Infinity),
    (i) => (i === 0 || i === 2 ? Number.NaN : i === 1 || i === 20 ? 3 : 0),
    (i) => (i === 5 || i === 9 ? 3e38 : -3e38),
    (i) => (i === 7 || i === 9 ? Infinity : 1),
    (i) => (i === 3 ? 1e-38 : 0),
  ];
  const parameters: readonly Omit<PlainRow, 'token'>[] = [
    sampled({}), sampled({}, rowMode.sample | rowMode.greedy), sampled({ topP: 0.5 }), sampled({ topK: 3 }), sampled({ minP: 0.5 }),
    sampled({ temperature: 1e-30 }), sampled({ topK: 4 }, processed), sampled({ target: 2 }, rowMode.target),
  ]; // prettier-ignore
  return sampleCase('odd-logits', {
    vocabSize,
    logits: (p) => {
      const values = Float32Array.from({ length: vocabSize ** 2 }, (_, i) => rows[Math.floor(i / vocabSize) % rows.length]!(i % vocabSize)); // prettier-ignore
      return p.g.gatherRows(p.table(vocabSize, values, 'f32'), p.g.input('logitRows'));
    },
    numSeqs: 8,
    numSteps: 1,
    prompts: Array.from({ length: 8 }, (_, seq) => [seq]),
    rowOf: (seq) => ({ ...parameters[seq]!, numLogprobs: 6, seed: 77n }),
  });
}
