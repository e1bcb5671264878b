/** The native sampler against core's reference, on the same logits: tokens, ranks and top lists equal, logprobs to 1e-5. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { rowMode } from '../../core/src/backend/step.js';
import { sampleRow, type SampleResult, type SampleRow } from '../../core/src/program/reference/sample.js';
import { nativeTest } from './native-test.js';

interface Case {
  readonly name: string;
  readonly logits: Float32Array;
  readonly row: SampleRow;
}

/** Numerical Recipes' linear congruential generator: the cases are the same on every run. */
class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  uniform(): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return this.#state / 2 ** 32;
  }
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }
  ints(size: number, n: number): Int32Array {
    return Int32Array.from({ length: size }, () => this.below(n));
  }
  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }
}

const plain: SampleRow = {
  mode: rowMode.sample,
  seed: 0n,
  position: 0,
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  suppressTokens: new Int32Array(),
  allowedTokens: new Int32Array(),
  biasTokens: new Int32Array(),
  biasValues: new Float32Array(),
  badWords: new Int32Array(),
  promptTokens: new Int32Array(),
  outputTokens: new Int32Array(),
  target: -1,
  numLogprobs: -1,
};

const fround = Math.fround;
const processedModes = [rowMode.sample, rowMode.sample | rowMode.greedy].map(
  (m) => m | rowMode.processedLogprobs,
);
const modes = [rowMode.sample, rowMode.sample | rowMode.greedy, rowMode.target, ...processedModes] as const;

/** Logits like a model's; `ties`: few distinct values. */
function randomLogits(random: Random, vocab: number, ties: boolean): Float32Array {
  const scale = random.pick([0.1, 2, 6]);
  return Float32Array.from({ length: vocab }, () =>
    ties ? random.below(5) * scale : random.normal() * scale - 3 * random.uniform(),
  );
}

/** Bad words of 1 to 3 tokens, some of which the output is about to complete. */
function randomBadWords(random: Random, vocab: number, output: Int32Array): Int32Array {
  const words: number[] = [];
  for (let n = random.below(4); n > 0; n--) {
    const length = 1 + random.below(3);
    const prefix =
      random.below(2) === 0 ? output.slice(output.length - (length - 1)) : random.ints(length - 1, vocab);
    if (prefix.length === length - 1) words.push(length, ...prefix, random.below(vocab));
  }
  return Int32Array.from(words);
}

function randomRow(random: Random, vocab: number): SampleRow {
  const rarely = (make: () => number, otherwise: number) =>
    random.below(3) === 0 ? fround(make()) : otherwise;
  const list = (max: number) => random.ints(random.below(3) === 0 ? random.below(max + 1) : 0, vocab);
  const outputTokens = random.ints(random.below(40), vocab);
  const biasTokens = list(5);
  return {
    mode: random.pick(modes) | (random.below(8) === 0 ? rowMode.target : 0),
    seed: (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32)),
    position: random.below(10_000),
    temperature: fround(random.pick([0.05, 0.7, 1, 1.9])),
    topK: random.pick([0, 0, 0, 1, 2, 7, 50, 900, vocab, 2 * vocab]),
    topP: fround(random.pick([1, 1, 0.999, 0.95, 0.9, 0.5, 0.01])),
    minP: fround(random.pick([0, 0, 0, 0.001, 0.1, 1])),
    presencePenalty: rarely(() => 4 * random.uniform() - 2, 0),
    frequencyPenalty: rarely(() => 4 * random.uniform() - 2, 0),
    repetitionPenalty: rarely(() => 0.5 + random.uniform() * 1.5, 1),
    suppressTokens: list(4),
    allowedTokens: list(Math.min(vocab, 60)),
    biasTokens,
    biasValues: Float32Array.from(biasTokens, () => random.normal() * 5),
    badWords: randomBadWords(random, vocab, outputTokens),
    promptTokens: random.ints(random.below(40), vocab),
    outputTokens,
    target: random.below(vocab),
    numLogprobs: random.pick([-1, -1, 0, 1, 5, 20, 900]),
  };
}

function randomCases(): Case[] {
  const random = new Random(11);
  const cases: Case[] = [];
  for (const vocab of [1, 2, 15, 16, 17, 63, 100, 2047, 2048, 2049, 5000]) {
    for (let i = 0; i < 120; i++) {
      const logits = randomLogits(random, vocab, i % 4 === 0);
      cases.push({ name: `vocab ${vocab}, case ${i}`, logits, row: randomRow(random, vocab) });
    }
  }
  return cases;
}

function largeCases(): Case[] {
  const random = new Random(5);
  const rows: Partial<SampleRow>[] = [
    {}, { topP: fround(0.9) }, { topP: fround(0.999), temperature: fround(1.7) }, { topK: 40 }, { minP: fround(0.05) },
    { topK: 2000, topP: fround(0.95) }, { mode: rowMode.sample | rowMode.greedy, numLogprobs: 20 }, { topK: 1 },
  ]; // prettier-ignore
  return rows.flatMap((row, i) => {
    const logits = randomLogits(random, 49152, false);
    return [1n, 2n, 3n].map((seed) => ({
      name: `large ${i}`,
      logits,
      row: { ...plain, seed, position: i, ...row },
    }));
  });
}

/** What must not crash, and still has one answer. */
function oddCases(): Case[] {
  const vocab = 3000;
  const filled = (value: number, rest: Record<number, number> = {}) => {
    const logits = new Float32Array(vocab).fill(value);
    for (const [token, logit] of Object.entries(rest)) logits[Number(token)] = logit;
    return logits;
  };
  const logitsOf: Record<string, Float32Array> = {
    'all NaN': filled(NaN),
    'all -inf': filled(-Infinity),
    'NaN and -inf': filled(NaN, { 1: -Infinity }),
    'all equal': filled(0.25),
    'all zero of both signs': filled(0, { 0: -0 }),
    'one finite': filled(-Infinity, { 2999: -1e30 }),
    'some NaN': filled(0, { 0: NaN, 1: 3, 2: NaN, 2998: 3 }),
    'the largest floats': filled(-3.4e38, { 5: 3.4e38, 9: 3.4e38 }),
    'one +inf': filled(1, { 7: Infinity, 9: Infinity }),
    'tiny numbers': filled(0, { 3: 1e-45, 4: 1e-40 }),
  };
  const rows: Partial<SampleRow>[] = [
    {}, { mode: rowMode.sample | rowMode.greedy }, { topP: 0.5 }, { topP: 0 }, { topK: 3 }, { minP: 0.5 }, { minP: 1, topK: 5, topP: 0.5 },
    { temperature: fround(1e-30) }, { temperature: fround(1e30), topP: 0.5 }, { mode: rowMode.sample | rowMode.processedLogprobs, topK: 4 },
    { suppressTokens: Int32Array.from({ length: vocab }, (_, i) => i), topP: 0.5 }, { allowedTokens: Int32Array.of(2999, 4), topK: 1 },
    { biasTokens: Int32Array.of(8, 8, 3), biasValues: Float32Array.of(100, -200, -Infinity) },
    { mode: rowMode.target, target: 2 },
  ]; // prettier-ignore
  return Object.entries(logitsOf).flatMap(([name, logits]) =>
    rows.map((row, i) => ({
      name: `${name}, row ${i}`,
      logits,
      row: { ...plain, numLogprobs: 6, seed: 77n, ...row },
    })),
  );
}

const bits = new DataView(new ArrayBuffer(4));
function floatBits(value: number): number {
  bits.setFloat32(0, value);
  return bits.getInt32(0);
}

/** The case in the words that `sample_cases` reads. */
function encode({ logits, row }: Case): Int32Array {
  const lists = [
    row.suppressTokens,
    row.allowedTokens,
    row.biasTokens,
    row.badWords,
    row.promptTokens,
    row.outputTokens,
  ];
  const floatWords = (values: Float32Array) =>
    new Int32Array(values.buffer, values.byteOffset, values.length);
  const words: number[] = [
    logits.length,
    row.mode,
    Number(row.seed & 0xffffffffn) | 0,
    Number(row.seed >> 32n) | 0,
    row.position,
  ];
  words.push(floatBits(row.temperature), row.topK, floatBits(row.topP), floatBits(row.minP));
  words.push(...[row.presencePenalty, row.frequencyPenalty, row.repetitionPenalty].map(floatBits));
  words.push(row.target, row.numLogprobs, ...lists.map((list) => list.length));
  for (const list of lists) {
    words.push(...Array.from(list));
    if (list === row.biasTokens) words.push(...floatWords(row.biasValues));
  }
  const encoded = new Int32Array(words.length + logits.length);
  encoded.set(words);
  encoded.set(floatWords(logits), words.length);
  return encoded;
}

function runNative(cases: readonly Case[]): SampleResult[] {
  const folder = mkdtempSync(join(tmpdir(), 'tenon-sample-'));
  try {
    const [input, output] = [join(folder, 'cases'), join(folder, 'results')];
    const encoded = cases.map(encode);
    writeFileSync(input, Buffer.concat(encoded.map((words) => Buffer.from(words.buffer))));
    execFileSync(nativeTest('sample_cases'), [input, output]);
    const words = new Int32Array(Uint8Array.from(readFileSync(output)).buffer);
    return decode(words, cases.length);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function decode(words: Int32Array, numCases: number): SampleResult[] {
  const floats = new Float32Array(words.buffer);
  const results: SampleResult[] = [];
  let at = 0;
  for (let i = 0; i < numCases; i++) {
    const numTop = words[at + 3]!;
    const [ids, logprobs] = [at + 4, at + 4 + numTop];
    results.push({
      token: words[at]!,
      logprob: floats[at + 1]!,
      rank: words[at + 2]!,
      topIds: Array.from(words.subarray(ids, ids + numTop)),
      topLogprobs: Array.from(floats.subarray(logprobs, logprobs + numTop)),
    });
    at += 4 + 2 * numTop;
  }
  expect(at).toBe(words.length);
  return results;
}

/** Equal, or within rounding of the sum of exponentials. */
const near = (a: number, b: number) =>
  Object.is(a, b) || a === b || Math.abs(a - b) <= 1e-5 * Math.max(1, Math.abs(b));

function expectSame(cases: readonly Case[]): void {
  const results = runNative(cases);
  const wrong = cases.filter(({ logits, row }, i) => {
    const expected = sampleRow(logits, row);
    const actual = results[i]!;
    const equal = ['token', 'rank', 'topIds'] as const;
    const same = equal.every((key) => JSON.stringify(actual[key]) === JSON.stringify(expected[key]));
    const logprobsNear = expected.topLogprobs.every((value, j) => near(actual.topLogprobs[j]!, value));
    if (same && logprobsNear && near(actual.logprob, expected.logprob)) return false;
    console.error(
      cases[i]!.name,
      { ...row, suppressTokens: row.suppressTokens.length },
      { actual, expected },
    );
    return true;
  });
  expect(wrong.map(({ name }) => name)).toEqual([]);
}

it('samples, ranks and scores as the reference does, for any mix of parameters', () => {
  expectSame(randomCases());
});

it('agrees on a vocabulary of 49152', () => {
  expectSame(largeCases());
});

it('has the reference answer for NaN, infinite, equal and masked logits', () => {
  expectSame(oddCases());
});

it("keeps each slot's last token and history, whatever the tiles and threads", () => {
  expect(execFileSync(nativeTest('sampler_test'), { encoding: 'utf8' })).toBe('ok\n');
});
