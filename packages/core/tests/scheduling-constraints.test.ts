/** What devices ask for as data: the one scheduler obeys it, and answers stay the same. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type {
  Backend, BackendModule, DeviceGroup, Executable, Plan, SchedulingConstraints,
} from '../src/backend/index.js'; // prettier-ignore
import { createNullBackend, type NullBackendOptions } from '../src/conformance/null-backend.js';
import { createReferenceBackend } from '../src/conformance/reference-backend.js';
import type { EngineOptions } from '../src/config/engine-options.js';
import { LLM } from '../src/llm.js';
import { StepReader } from '../src/program/reference/step-reader.js';

const model = join(import.meta.dirname, 'goldens', 'llama');

interface SeenStep {
  readonly numTokens: number;
  readonly numSeqs: number;
  readonly numLogitRows: number;
  readonly captureKey: number;
  /** Real sequences: position of the first token, and how many. */
  readonly spans: readonly { readonly start: number; readonly count: number; readonly seqLen: number }[];
  readonly blockTableStride: number;
}

/** The reference backend under these constraints, with every step and plan noted on its way. */
function watchedBackend(constraints: Partial<SchedulingConstraints>): {
  module: BackendModule;
  steps: SeenStep[];
  plans: Plan[];
  events: string[];
} {
  const steps: SeenStep[] = [];
  const plans: Plan[] = [];
  const events: string[] = [];
  const inner = createReferenceBackend({ constraints });
  const watch = (executable: Executable): Executable => ({
    run: (words, result) => {
      steps.push(seen(words));
      events.push('step');
      executable.run(words, result);
    },
    memory: () => executable.memory(),
    freeze: () => void events.push('freeze'),
    close: () => executable.close(),
  });
  const watchGroup = (group: DeviceGroup): DeviceGroup => ({
    constraints: group.constraints,
    kvBlockBytes: (...args) => group.kvBlockBytes(...args),
    negotiate: (request) => group.negotiate(request),
    load: async (plan, weights, options) => {
      plans.push(plan);
      return watch(await group.load(plan, weights, options));
    },
    close: () => group.close(),
  });
  const create = (host: Parameters<BackendModule['create']>[0]): Backend => {
    const backend = inner.create(host);
    return {
      info: backend.info,
      devices: () => backend.devices(),
      open: async (...args) => watchGroup(await backend.open(...args)),
    };
  };
  return { module: { api: inner.api, create }, steps, plans, events };
}

function seen(words: Int32Array): SeenStep {
  const step = new StepReader(words);
  const offsets = step.ints('cuSeqlensQ', step.numSeqs + 1);
  const slots = step.ints('slotMapping', step.numTokens);
  const positions = step.ints('positions', step.numTokens);
  const lens = step.ints('seqLens', step.numSeqs);
  const spans = Array.from({ length: step.numSeqs }, (_, i) => i)
    .filter((i) => slots[offsets[i]!]! >= 0)
    .map((i) => ({
      start: positions[offsets[i]!]!,
      count: offsets[i + 1]! - offsets[i]!,
      seqLen: lens[i]!,
    }));
  const { numTokens, numSeqs, numLogitRows, blockTableStride, captureKey } = step;
  return { numTokens, numSeqs, numLogitRows, blockTableStride, captureKey, spans };
}

const prompts = [3, 17, 40, 9, 26].map((length, i) =>
  Array.from({ length }, (_, j) => (j * 31 + i * 57 + 11) % 320),
);

async function generate(constraints: Partial<SchedulingConstraints>, options: EngineOptions = {}) {
  const watched = watchedBackend(constraints);
  await using llm = await LLM.load(
    model,
    { dtype: 'float32', skipTokenizerInit: true, maxModelLen: 64, maxNumSeqs: 4, ...options },
    { backend: watched.module },
  );
  const params = [
    { temperature: 0, maxTokens: 12, ignoreEos: true },
    { temperature: 0.8, seed: 4, maxTokens: 9, ignoreEos: true },
    { temperature: 0, maxTokens: 7, ignoreEos: true, repetitionPenalty: 1.3 },
    { temperature: 0, maxTokens: 10, ignoreEos: true, logitBias: { 7: 2 } },
    { temperature: 1, seed: 9, maxTokens: 3, ignoreEos: true, n: 2, logprobs: 2 },
  ];
  const outputs = await llm.generate(prompts, params);
  return { ...watched, tokens: outputs.flatMap((output) => output.outputs.map(({ tokenIds }) => tokenIds)) };
}

/** Steps after warm-up. */
const served = ({
  steps,
  events,
}: {
  steps: readonly SeenStep[];
  events: readonly string[];
}): readonly SeenStep[] => steps.slice(Math.max(0, events.indexOf('freeze')));

describe('scheduling constraints', async () => {
  const plain = await generate({});

  it('slots: a sequence has one block that holds the longest there may be', async () => {
    const run = await generate({ kvLayout: 'slots', blockSizes: [16] });
    expect(run.tokens).toEqual(plain.tokens);
    expect(run.plans[0]!.limits).toMatchObject({ blockSize: 64, numBlocks: 4 });
    for (const step of run.steps) expect(step.blockTableStride).toBe(1);
  });

  it('slots are rounded up to the unit, and no other block size is taken', async () => {
    const run = await generate({ kvLayout: 'slots', blockSizes: [48] });
    expect(run.plans[0]!.limits.blockSize).toBe(96);
    await expect(generate({ kvLayout: 'slots' }, { blockSize: 16 })).rejects.toThrow(
      'option blockSize is 16; expected none, as the device keeps each sequence in one piece; set maxModelLen',
    );
  });

  it('decode buckets: steps of single tokens are padded in tokens, sequences and rows', async () => {
    const run = await generate({ decodeBuckets: [1, 3, 6] }, { maxNumSeqs: 6 });
    expect(run.tokens).toEqual(plain.tokens);
    const decodes = run.steps.filter(({ numTokens, numSeqs }) => numTokens === numSeqs);
    expect(new Set(decodes.map(({ numSeqs }) => numSeqs))).toEqual(new Set([1, 3, 6]));
    for (const step of decodes) expect(step.numLogitRows).toBe(step.numSeqs);
    expect(decodes.some(({ spans, numSeqs }) => spans.length < numSeqs)).toBe(true);
    await expect(generate({ decodeBuckets: [2] })).rejects.toThrow(
      'option maxNumSeqs is 4; expected at most 2 on this device',
    );
  });

  it('a fixed batch: every step of single tokens has the same shape', async () => {
    const run = await generate({ decodeBuckets: [4], mixedPrefillDecode: false, tokenBuckets: [16, 64] });
    expect(run.tokens).toEqual(plain.tokens);
    for (const { numTokens, numSeqs } of run.steps) {
      if (numTokens !== numSeqs) expect([16, 64]).toContain(numTokens);
      else expect(numSeqs).toBe(4);
    }
  });

  it('whole prompts: each prompt is one span from its first token on, and nothing cached stands in', async () => {
    const run = await generate({ chunkedPrefill: false, maxTokens: 64 }, { maxNumBatchedTokens: 64 });
    expect(run.tokens).toEqual(plain.tokens);
    for (const { spans } of run.steps)
      for (const { start, count, seqLen } of spans)
        expect(start === 0 ? count : seqLen - start).toBe(start === 0 ? seqLen : 1);
    await expect(generate({ chunkedPrefill: false, maxTokens: 32 })).rejects.toThrow(
      'option maxModelLen is 64; expected at most 32, the most tokens of a step on this device, as the device computes prompts whole',
    );
  });

  it('warm-up: one step of padding per bucket, largest first, then freeze, before anything is served', async () => {
    const run = await generate(
      { warmup: true, tokenBuckets: [8, 32, 64], decodeBuckets: [2, 4] },
      { maxNumBatchedTokens: 32 },
    );
    expect(run.tokens).toEqual(plain.tokens);
    expect(run.events.indexOf('freeze')).toBe(4);
    expect(run.steps.slice(0, 4).map(({ numTokens, numSeqs }) => [numTokens, numSeqs])).toEqual([
      [32, 1],
      [8, 1],
      [4, 4],
      [2, 2],
    ]);
    for (const { spans } of run.steps.slice(0, 4)) expect(spans).toEqual([]);
    const warm = new Set(run.steps.slice(0, 4).map(({ numTokens }) => numTokens));
    for (const { numTokens } of served(run)) expect(warm).toContain(numTokens);
  });

  it('warm-up: a failing step, or one that never ends, is the reason that the model does not load', async () => {
    const load = (inject: NonNullable<NullBackendOptions['inject']>) =>
      LLM.load(
        model,
        { skipTokenizerInit: true, maxModelLen: 64, stepTimeout: 0.05 },
        { backend: createNullBackend({ constraints: { warmup: true, decodeBuckets: [4, 256] }, inject }) },
      );
    const failing = load(() => ({ code: 'backend.out-of-memory', message: 'no room for the graph' }));
    await expect(failing).rejects.toMatchObject({
      code: 'backend.out-of-memory',
      message: 'warm-up with a step of 2048 tokens and 1 sequences: no room for the graph',
    });
    await expect(load((stepId) => (stepId === -2 ? 'hang' : undefined))).rejects.toMatchObject({
      code: 'backend.device-lost',
      message: expect.stringContaining(
        'warm-up with a step of 256 tokens and 256 sequences: no answer for 0.05 s',
      ),
    });
  });

  it('capture keys: equal for steps of equal shape, none for steps with lists or prompts', async () => {
    const run = await generate({ capture: true, decodeBuckets: [2, 4] });
    expect(run.tokens).toEqual(plain.tokens);
    const shapes = new Map<number, string>();
    for (const step of run.steps.filter(({ captureKey }) => captureKey > 0)) {
      const shape = JSON.stringify([step.numTokens, step.numSeqs, step.numLogitRows, step.blockTableStride]);
      expect(shapes.get(step.captureKey) ?? shape).toBe(shape);
      shapes.set(step.captureKey, shape);
    }
    expect(shapes.size).toBeGreaterThan(0);
    for (const step of run.steps.filter(({ numTokens, numSeqs }) => numTokens !== numSeqs))
      expect(step.captureKey).toBe(0);
    // logit_bias makes a list in every step of its request
    expect(
      run.steps.some(({ numTokens, numSeqs, captureKey }) => numTokens === numSeqs && captureKey === 0),
    ).toBe(true);
  });

  it('all of them together', async () => {
    const run = await generate(
      {
        kvLayout: 'slots', blockSizes: [64], tokenBuckets: [64], decodeBuckets: [4], chunkedPrefill: false,
        mixedPrefillDecode: false, capture: true, warmup: true, stepsInFlight: 1,
      }, // prettier-ignore
      { maxNumBatchedTokens: 64 },
    );
    expect(run.tokens).toEqual(plain.tokens);
  });
});
