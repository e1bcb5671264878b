import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createNullBackend } from '../src/conformance/null-backend.js';
import { referenceBackend } from '../src/conformance/reference-backend.js';
import type { EngineOptions } from '../src/config/engine-options.js';
import { LLM } from '../src/llm.js';

const goldens = join(import.meta.dirname, 'goldens');
/** Its golden is of float32 weights all the way, so answers have to agree with it to the last certain token. */
const exact = 'qwen3-large-heads';
const stories = join(import.meta.dirname, '../../model-stories/model');

interface GoldenCase {
  readonly prompt: number[];
  readonly prompt_logprobs: number[];
  readonly greedy: number[];
  readonly margins: number[];
}
const casesOf = (name: string) =>
  (JSON.parse(readFileSync(join(goldens, name, 'golden.json'), 'utf8')) as { cases: GoldenCase[] }).cases;

const load = (name: string, options: EngineOptions = {}) =>
  LLM.load(
    join(goldens, name),
    { dtype: 'float32', skipTokenizerInit: true, ...options },
    { backend: referenceBackend },
  );

/** Tokens up to the first near-tie, where another one would be right too. */
function certain({ greedy, margins }: GoldenCase): number[] {
  const tie = margins.findIndex((margin) => margin <= 2e-3);
  return tie === -1 ? greedy : greedy.slice(0, tie);
}

async function expectGolden(llm: LLM, cases: readonly GoldenCase[]): Promise<void> {
  const outputs = await llm.generate(
    cases.map(({ prompt }) => prompt),
    cases.map(({ greedy }) => ({ temperature: 0, maxTokens: greedy.length, ignoreEos: true })),
  );
  outputs.forEach((output, i) => {
    const tokens = certain(cases[i]!);
    expect(output.outputs[0]!.tokenIds.slice(0, tokens.length)).toEqual(tokens);
  });
}

describe('LLM on the reference backend', () => {
  /** Options, and whether they make requests be preempted and find each other's prefixes. */
  const setups: [string, EngineOptions, { preempted?: boolean; cached?: boolean }][] = [
    ['whole prompts', {}, { cached: true, preempted: false }],
    ['chunked prompts, small batches', { maxNumBatchedTokens: 8, maxNumSeqs: 4 }, { cached: true }],
    [
      'blocks for one sequence',
      { numGpuBlocksOverride: 8, blockSize: 16, maxModelLen: 128, watermark: 0 },
      { preempted: true },
    ],
    [
      'no prefix cache, one step at a time',
      { enablePrefixCaching: false, asyncScheduling: false },
      { cached: false },
    ],
  ];
  it.each(setups)('gives the golden tokens with %s, twice', async (_, options, effects) => {
    const cases = casesOf(exact);
    await using llm = await load(exact, options);
    await expectGolden(llm, cases);
    await expectGolden(llm, cases);
    const { numUsedBlocks, numRunning, prefixCacheHitsTotal, numPreemptionsTotal } = llm.engine.stats();
    expect([numUsedBlocks, numRunning]).toEqual([0, 0]);
    if (effects.cached !== undefined) expect(prefixCacheHitsTotal > 0).toBe(effects.cached);
    if (effects.preempted !== undefined) expect(numPreemptionsTotal > 0).toBe(effects.preempted);
  });

  it('gives the golden logprobs of prompts, chunked', async () => {
    const cases = casesOf(exact);
    await using llm = await load(exact, { maxNumBatchedTokens: 16, maxNumSeqs: 8 });
    const outputs = await llm.generate(cases.map(({ prompt }) => prompt), { maxTokens: 1, temperature: 0, promptLogprobs: 0 }); // prettier-ignore
    outputs.forEach((output, i) => {
      cases[i]!.prompt_logprobs.forEach((logprob, k) => {
        expect(Math.abs(output.promptLogprobs![k + 1]![0]!.logprob - logprob)).toBeLessThan(1e-3);
      });
    });
  });

  it('answers a request the same alone and in a batch, greedy or seeded, n = 4', async () => {
    const prompts = casesOf('mistral').map(({ prompt }) => prompt).filter((prompt) => prompt.length <= 40); // prettier-ignore
    const params = [...prompts.map((_, seed) => ({ seed, maxTokens: 8 })), { seed: 3, n: 4, maxTokens: 8 }];
    const all = [...prompts, prompts[0]!];
    await using llm = await load('mistral', { enablePrefixCaching: false });
    const together = await llm.generate(all, params);
    for (let i = 0; i < all.length; i++) {
      const [alone] = await llm.generate(all[i]!, params[i]!);
      expect(alone!.outputs.map(({ tokenIds }) => tokenIds)).toEqual(
        together[i]!.outputs.map(({ tokenIds }) => tokenIds),
      );
    }
    expect(new Set(together.at(-1)!.outputs.map(({ tokenIds }) => tokenIds.join())).size).toBeGreaterThan(1);
  });
});

describe('LLM on the null backend', () => {
  const loadStories = (options: EngineOptions = {}) =>
    LLM.load(
      stories,
      { device: 'null', ...options },
      { backend: createNullBackend({ neverSample: [0, 1, 2] }) },
    );

  it('generates in order, streams, and chats', async () => {
    await using llm = await loadStories();
    const outputs = await llm.generate(['One', 'Two', 'Three'], [{ maxTokens: 3 }, { maxTokens: 5 }, {}]);
    expect(outputs.map(({ outputs: [first] }) => first!.tokenIds.length)).toEqual([3, 5, 16]);
    let text = '';
    for await (const output of llm.stream('Once', { maxTokens: 20, seed: 1 }))
      text += output.outputs[0]!.text;
    const [whole] = await llm.generate('Once', { maxTokens: 20, seed: 1 });
    expect(text).toBe(whole!.outputs[0]!.text);
    const [answer] = await llm.chat([{ role: 'user', content: 'Tell me a story.' }], { maxTokens: 4 });
    expect(answer!.finished).toBe(true);
    expect(llm.explain()).toContain('attention');
  });

  it('aborts by signal, and ends what runs when it is disposed of', async () => {
    const llm = await LLM.load(
      stories,
      { device: 'null' },
      { backend: createNullBackend({ stepMs: 2, neverSample: [0, 1, 2] }) },
    );
    const [output] = await llm.generate('Once', { maxTokens: 400 }, { signal: AbortSignal.timeout(40) });
    expect(output!.outputs[0]!.finishReason).toBe('abort');
    const running = llm.generate('Once', { maxTokens: 400 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    await Promise.all([
      expect(running).rejects.toMatchObject({ code: 'capacity.shutting-down' }),
      llm[Symbol.asyncDispose](),
    ]);
  });

  it('refuses mismatched parameters, bad values and devices that are not there', async () => {
    await using llm = await loadStories();
    await expect(llm.generate(['a', 'b'], [{}])).rejects.toMatchObject({ code: 'request.invalid-value' });
    await expect(llm.generate('a', { topP: 2 })).rejects.toMatchObject({ param: 'topP' });
    await expect(loadStories({ device: 'null:7' })).rejects.toMatchObject({
      code: 'config.device-not-found',
    });
    await expect(loadStories({ numGpuBlocksOverride: 1, maxModelLen: 400 })).rejects.toMatchObject({
      code: 'config.max-model-len',
    });
  });
});
