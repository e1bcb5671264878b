import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EngineCore, type EngineCoreOptions } from '../src/engine/engine-core.js';
import type { CoreRequest, FromCore } from '../src/engine/core-messages.js';
import { coreStatsOf, visitOutputs } from '../src/engine/output-records.js';
import { buildSamplerRow } from '../src/sampling/sampler-row.js';
import { samplingDefaults } from '../src/sampling/resolve-sampling-params.js';
import type { SamplingParams } from '../src/sampling/sampling-params.js';
import { expectedTokens, HistoryModel, type StepView } from './support/history-model.js';

const vocabSize = 1000;
const blockSize = 4;

interface CoreSetup {
  readonly numBlocks: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly enablePrefixCaching: boolean;
  readonly sharedPromptLength?: number;
  readonly maxResultWords?: number;
  readonly maxPromptTokensBesideDecodes: number;
  readonly enableChunkedPrefill: boolean;
  readonly longPrefillTokenThreshold: number;
  readonly mixedPrefillDecode: boolean;
  readonly stepsInFlight: number;
  readonly maxUnreadOutputs?: number;
  readonly tokenBuckets: readonly number[];
}

const defaults: CoreSetup = {
  numBlocks: 64,
  maxNumSeqs: 8,
  maxNumBatchedTokens: 32,
  maxPromptTokensBesideDecodes: Infinity,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  mixedPrefillDecode: true,
  stepsInFlight: 2,
  tokenBuckets: [],
};
const maxModelLen = 64;

/** A core on a history model, its outputs gathered per sequence. */
class TestCore {
  readonly tokens = new Map<number, number[]>();
  readonly ends = new Map<number, string[]>();
  readonly cached = new Map<number, number>();
  readonly scores = new Map<number, number[]>();
  readonly steps: { queryLens: number[]; numTokens: number }[] = [];
  readonly core: EngineCore;
  readonly model: HistoryModel;
  stats = {
    numUsedBlocks: 0,
    numFreeBlocks: 0,
    numPreemptionsTotal: 0,
    numRunning: 0,
    numWaiting: 0,
    prefixCacheHitsTotal: 0,
  };

  constructor(readonly setup: CoreSetup) {
    this.model = new HistoryModel({
      vocabSize,
      blockSize,
      numBlocks: setup.numBlocks,
      maxNumSeqs: setup.maxNumSeqs,
      onStepDone: (stepId) => this.core.stepDone(stepId),
      inspect: (step) => this.#inspect(step),
    });
    const options: EngineCoreOptions = {
      scheduler: { ...setup, maxResultWords: setup.maxResultWords ?? 1e6 },
      numBlocks: setup.numBlocks,
      blockSize,
      watermarkBlocks: 1,
      maxModelLen,
      enablePrefixCaching: setup.enablePrefixCaching,
      sharedPromptLength: setup.sharedPromptLength ?? Infinity,
      stepsInFlight: setup.stepsInFlight,
      maxUnreadOutputs: setup.maxUnreadOutputs ?? Infinity,
      tokenBuckets: setup.tokenBuckets,
    };
    this.core = new EngineCore(options, this.model, (message) => this.#receive(message));
  }

  add(
    id: number,
    prompt: readonly number[],
    params: Partial<SamplingParams> = {},
    more: Partial<CoreRequest> = {},
  ): void {
    const complete = { ...samplingDefaults, ...params };
    this.core.receive({
      type: 'add',
      request: {
        firstSequenceId: id,
        promptTokenIds: Int32Array.from(prompt),
        seed: 0n,
        n: complete.n,
        sampler: buildSamplerRow(complete, {
          suppressTokens: complete.stopTokenIds,
          badWords: new Int32Array(0),
          processedLogprobs: false,
        }),
        maxTokens: complete.maxTokens ?? Infinity,
        stopTokenIds: complete.stopTokenIds,
        priority: 0,
        cacheSalt: undefined,
        extraArgs: complete.extraArgs,
        ...more,
      },
    });
  }

  /** Until nothing is queued or running. */
  async idle(): Promise<void> {
    do await new Promise((resolve) => setImmediate(resolve));
    while (this.model.numQueued > 0);
    await new Promise((resolve) => setImmediate(resolve));
  }

  #receive(message: FromCore): void {
    if (message.type === 'failed') throw new Error(message.error.message);
    if (message.type !== 'outputs') return;
    this.stats = coreStatsOf(message.records);
    expect(this.stats.numFreeBlocks + this.stats.numUsedBlocks).toBe(this.setup.numBlocks);
    visitOutputs(message.records, {
      started: (id, _, numCached) => this.cached.set(id, numCached),
      token: (id, token, end) => {
        expect(this.ends.has(id)).toBe(false);
        this.tokens.set(id, [...(this.tokens.get(id) ?? []), token]);
        if (end !== undefined) this.ends.set(id, [end]);
      },
      score: (id, position) => this.scores.set(id, [...(this.scores.get(id) ?? []), position]),
    });
  }

  #inspect(step: StepView): void {
    const { maxNumSeqs, maxNumBatchedTokens, mixedPrefillDecode, tokenBuckets } = this.setup;
    const numSeqs = step.field('numSeqs');
    const queryLens = Array.from(
      { length: numSeqs },
      (_, i) => step.at('cuSeqlensQ', i + 1) - step.at('cuSeqlensQ', i),
    );
    const numTokens = step.at('cuSeqlensQ', numSeqs);
    const slots = Array.from({ length: numSeqs }, (_, i) => step.at('seqSlots', i));
    expect(numSeqs).toBeLessThanOrEqual(maxNumSeqs);
    expect(numTokens).toBeLessThanOrEqual(maxNumBatchedTokens);
    expect(new Set(slots).size).toBe(numSeqs);
    expect(Math.min(...slots)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...slots)).toBeLessThan(maxNumSeqs);
    expect(Math.min(...queryLens)).toBeGreaterThan(0);
    if (!mixedPrefillDecode)
      expect(queryLens.every((length) => length === 1) || queryLens.every((length) => length > 1)).toBe(true);
    const padded = step.field('numTokens');
    expect(padded).toBe(tokenBuckets.find((bucket) => bucket >= numTokens) ?? numTokens);
    for (let i = numTokens; i < padded; i++) expect(step.at('slotMapping', i)).toBe(-1);
    const resultWords = step.field('numLogitRows') * (3 + 2 * step.field('maxTopLogprobs'));
    expect(resultWords).toBeLessThanOrEqual(this.setup.maxResultWords ?? 1e6);
    this.steps.push({ queryLens, numTokens });
  }
}

const promptOf = (length: number, salt = 0) =>
  Array.from({ length }, (_, i) => (i * 7 + salt * 131 + 3) % vocabSize);

const setups = fc.record({
  numBlocks: fc.integer({ min: maxModelLen / blockSize, max: 48 }),
  maxNumSeqs: fc.integer({ min: 1, max: 6 }),
  maxNumBatchedTokens: fc.integer({ min: 8, max: 40 }),
  maxPromptTokensBesideDecodes: fc.constantFrom(1, 6, Infinity),
  enablePrefixCaching: fc.boolean(),
  enableChunkedPrefill: fc.constant(true),
  longPrefillTokenThreshold: fc.constantFrom(0, 5),
  mixedPrefillDecode: fc.boolean(),
  stepsInFlight: fc.integer({ min: 1, max: 3 }),
  tokenBuckets: fc.constantFrom([], [4, 8, 16, 40]),
});
const requests = fc.array(
  fc.record({
    promptLength: fc.integer({ min: 1, max: 40 }),
    salt: fc.integer({ min: 0, max: 2 }),
    maxTokens: fc.integer({ min: 1, max: 30 }),
    n: fc.constantFrom(1, 1, 1, 3),
    priority: fc.integer({ min: 0, max: 2 }),
    /** Event-loop turns before it comes, and before it is aborted. */
    delay: fc.integer({ min: 0, max: 12 }),
    abortAfter: fc.option(fc.integer({ min: 0, max: 15 }), { nil: undefined }),
  }),
  { minLength: 1, maxLength: 10 },
);

describe('EngineCore', () => {
  it('answers every request right and gives all blocks back, whatever comes, goes and is preempted', async () => {
    await fc.assert(
      fc.asyncProperty(setups, requests, async (setup, list) => {
        const core = new TestCore({ ...setup, mixedPrefillDecode: setup.mixedPrefillDecode });
        const maxTurn = Math.max(...list.map(({ delay, abortAfter }) => delay + (abortAfter ?? 0)));
        for (let turn = 0; turn <= maxTurn; turn++) {
          list.forEach((request, i) => {
            const { delay, abortAfter, promptLength, salt, maxTokens, n, priority } = request;
            const ids = Array.from({ length: n }, (_, k) => 10 * (i + 1) + k);
            if (delay === turn)
              core.add(ids[0]!, promptOf(promptLength, salt), { n, maxTokens }, { priority });
            if (abortAfter !== undefined && delay + abortAfter === turn)
              core.core.receive({ type: 'end', sequenceIds: ids });
          });
          await new Promise((resolve) => setImmediate(resolve));
        }
        await core.idle();
        list.forEach(({ promptLength, salt, maxTokens, n, abortAfter }, i) => {
          const expected = expectedTokens(
            promptOf(promptLength, salt),
            Math.min(maxTokens, maxModelLen - promptLength),
            vocabSize,
          );
          for (let k = 0; k < n; k++) {
            const id = 10 * (i + 1) + k;
            const tokens = core.tokens.get(id) ?? [];
            expect(tokens).toEqual(expected.slice(0, tokens.length));
            if (abortAfter !== undefined) continue;
            expect(tokens.length).toBe(expected.length);
            expect(core.ends.get(id)).toEqual(['length']);
          }
        });
        expect(core.stats).toMatchObject({
          numUsedBlocks: 0,
          numRunning: 0,
          numWaiting: 0,
          numFreeBlocks: setup.numBlocks,
        });
      }),
      { numRuns: 150 },
    );
  });

  it('preempts and recomputes when blocks run out', async () => {
    const core = new TestCore({ ...defaults, numBlocks: 16, maxNumSeqs: 4 });
    for (let i = 0; i < 4; i++) core.add(i, promptOf(9, i), { maxTokens: 40 });
    await core.idle();
    for (let i = 0; i < 4; i++)
      expect(core.tokens.get(i)).toEqual(expectedTokens(promptOf(9, i), 40, vocabSize));
    expect(core.stats.numPreemptionsTotal).toBeGreaterThan(0);
    expect(core.stats.numUsedBlocks).toBe(0);
  });

  it('preempts the request with the largest (priority, arrival) and finishes the smallest first', async () => {
    const core = new TestCore({ ...defaults, numBlocks: 16, maxNumSeqs: 4, maxNumBatchedTokens: 64 });
    const order: number[] = [];
    [2, 0, 1, 0].forEach((priority, i) => core.add(i, promptOf(9, i), { maxTokens: 40 }, { priority }));
    while (order.length < 4) {
      await new Promise((resolve) => setImmediate(resolve));
      for (const id of core.ends.keys()) if (!order.includes(id)) order.push(id);
    }
    expect(order).toEqual([1, 3, 2, 0]);
  });

  it('computes a chunked prompt as it computes a whole one', async () => {
    for (const longPrefillTokenThreshold of [0, 3]) {
      for (const maxNumBatchedTokens of [8, 64]) {
        const core = new TestCore({ ...defaults, longPrefillTokenThreshold, maxNumBatchedTokens });
        core.add(1, promptOf(33), { maxTokens: 5 });
        await core.idle();
        expect(core.tokens.get(1)).toEqual(expectedTokens(promptOf(33), 5, vocabSize));
      }
    }
  });

  it('reads prompts in small parts while others wait for their next tokens, until one step can read the rest', async () => {
    const core = new TestCore({ ...defaults, maxPromptTokensBesideDecodes: 6 });
    for (const id of [1, 2, 3]) core.add(id, promptOf(40, id), { maxTokens: 12 });
    await core.idle();
    const lengths = core.steps.map(({ queryLens }) => queryLens.toSorted((a, b) => b - a));
    // no answer has begun; then there are 56 tokens to read, six at a time, until 26 are left, which fit
    expect(lengths.slice(0, 9)).toEqual([
      [32], [24, 8], [6, 1], [6, 1], [4, 2, 1], [6, 1, 1], [6, 1, 1], [26, 1, 1], [1, 1, 1],
    ]); // prettier-ignore
    for (const id of [1, 2, 3]) expect(core.ends.get(id)).toEqual(['length']);
  });

  it('reads prompts in full steps while many more wait for their first token than for their next', async () => {
    const core = new TestCore({ ...defaults, maxPromptTokensBesideDecodes: 6 });
    for (const id of [1, 2, 3, 4]) core.add(id, promptOf(40, id), { maxTokens: 12 });
    await core.idle();
    const lengths = core.steps.map(({ queryLens }) => queryLens.toSorted((a, b) => b - a));
    // three prompts to one answer, then two to two
    expect(lengths.slice(0, 5)).toEqual([[32], [24, 8], [16, 15, 1], [6, 1, 1], [6, 1, 1]]);
  });

  it('never splits a prompt with chunked prefill off', async () => {
    const core = new TestCore({ ...defaults, enableChunkedPrefill: false, maxNumBatchedTokens: 64 });
    for (let i = 0; i < 5; i++) core.add(i, promptOf(30, i), { maxTokens: 3 });
    await core.idle();
    expect(core.steps.flatMap((step) => step.queryLens).filter((length) => length > 1)).toEqual([
      30, 30, 30, 30, 30,
    ]);
  });

  it('gives the same tokens on a prefix hit as on a miss', async () => {
    const core = new TestCore(defaults);
    core.add(1, promptOf(22), { maxTokens: 6 });
    await core.idle();
    core.add(2, promptOf(22), { maxTokens: 6 });
    core.add(3, promptOf(22), { maxTokens: 6 }, { cacheSalt: 'other' });
    await core.idle();
    expect([1, 2, 3].map((id) => core.cached.get(id))).toEqual([0, 20, 0]);
    expect(core.tokens.get(2)).toEqual(core.tokens.get(1));
    expect(core.tokens.get(3)).toEqual(core.tokens.get(1));
    expect(core.stats.prefixCacheHitsTotal).toBe(20);
  });

  it('shares prompts beyond the shared length only with prompts as long', async () => {
    const core = new TestCore({ ...defaults, sharedPromptLength: 24 });
    for (const [id, length] of [
      [1, 24],
      [2, 30],
      [3, 28],
      [4, 30],
      [5, 20],
    ] as const) {
      core.add(id, promptOf(length), { maxTokens: 1 });
      await core.idle();
    }
    expect([1, 2, 3, 4, 5].map((id) => core.cached.get(id))).toEqual([0, 0, 0, 28, 16]);
  });

  it('finds the tokens it generated when they come back in the next prompt', async () => {
    const core = new TestCore(defaults);
    core.add(1, promptOf(10), { maxTokens: 14 });
    await core.idle();
    core.add(2, [...promptOf(10), ...core.tokens.get(1)!, 5, 6], { maxTokens: 2 });
    await core.idle();
    expect(core.cached.get(2)).toBe(20);
  });

  it('shares the prompt between the sequences of a request, also without prefix caching', async () => {
    for (const enablePrefixCaching of [true, false]) {
      const core = new TestCore({ ...defaults, enablePrefixCaching });
      core.add(1, promptOf(30), { n: 4, maxTokens: 2 });
      core.add(9, promptOf(30), { maxTokens: 2 });
      await core.idle();
      expect([1, 2, 3, 4].map((id) => core.cached.get(id))).toEqual([0, 28, 28, 28]);
      expect(core.cached.get(9)).toBe(enablePrefixCaching ? 28 : 0);
    }
  });

  it('wastes no step on a request that ends by length, and drops the token after a stop token', async () => {
    const core = new TestCore(defaults);
    core.add(1, promptOf(6), { maxTokens: 5 });
    await core.idle();
    expect(core.steps.length).toBe(5);
    const expected = expectedTokens(promptOf(7), 5, vocabSize);
    core.add(2, promptOf(7), { maxTokens: 20, stopTokenIds: [expected[4]!] });
    await core.idle();
    expect(core.tokens.get(2)).toEqual(expected);
    expect(core.ends.get(2)).toEqual(['stop']);
    expect(core.steps.length).toBe(5 + 6);
  });

  it('suppresses stop tokens before minTokens', async () => {
    const expected = expectedTokens(promptOf(7), 1, vocabSize);
    const core = new TestCore(defaults);
    core.add(1, promptOf(7), { maxTokens: 9, minTokens: 3, stopTokenIds: expected });
    await core.idle();
    expect(core.tokens.get(1)![0]).toBe(expected[0]! + 1);
    expect(core.tokens.get(1)!.length).toBe(9);
  });

  it('scores every prompt token once, chunked, preempted or cached', async () => {
    const core = new TestCore({ ...defaults, maxNumBatchedTokens: 8 });
    core.add(1, promptOf(30), { maxTokens: 2 });
    await core.idle();
    core.add(2, promptOf(30), { maxTokens: 2, promptLogprobs: 2 });
    await core.idle();
    expect(core.cached.get(2)).toBe(0);
    expect(core.scores.get(2)).toEqual(Array.from({ length: 29 }, (_, i) => i + 1));
  });

  it('keeps results small where long top lists are wanted, and still answers all', async () => {
    const core = new TestCore({ ...defaults, maxResultWords: 5 * (3 + 2 * 100) });
    core.add(1, promptOf(30, 1), { maxTokens: 6, promptLogprobs: 100 });
    core.add(2, promptOf(20, 2), { maxTokens: 6, logprobs: 3 });
    for (let i = 3; i < 9; i++) core.add(i, promptOf(20, i), { maxTokens: 6 });
    await core.idle();
    expect(core.scores.get(1)).toHaveLength(29);
    for (let i = 2; i < 9; i++)
      expect(core.tokens.get(i)).toEqual(expectedTokens(promptOf(20, i), 6, vocabSize));
  });

  it('waits for a front end that does not keep up, and loses nothing', async () => {
    const core = new TestCore({ ...defaults, maxUnreadOutputs: 4 });
    for (let i = 0; i < 3; i++) core.add(i, promptOf(10, i), { maxTokens: 40 });
    await core.idle();
    // Those steps that were in flight already have ended.
    expect(core.model.numSteps).toBeLessThanOrEqual(4 + defaults.stepsInFlight);
    for (let reads = 1; core.ends.size < 3; reads++) {
      expect(reads).toBeLessThan(100);
      core.core.receive({ type: 'read', count: 1 });
      await core.idle();
      expect(core.model.numSteps).toBeLessThanOrEqual(4 + defaults.stepsInFlight + reads);
    }
    for (let i = 0; i < 3; i++)
      expect(core.tokens.get(i)).toEqual(expectedTokens(promptOf(10, i), 40, vocabSize));
  });

  it('permutes its answers as the requests are permuted', async () => {
    const prompts = [5, 17, 30, 9, 22].map((length, i) => promptOf(length, i));
    const answers = async (order: readonly number[]) => {
      const core = new TestCore({ ...defaults, numBlocks: 24 });
      for (const i of order) core.add(i, prompts[i]!, { maxTokens: 12 });
      await core.idle();
      return prompts.map((_, i) => core.tokens.get(i));
    };
    expect(await answers([4, 2, 0, 3, 1])).toEqual(await answers([0, 1, 2, 3, 4]));
  });
});
