/** Hugging Face's answers, through the library: whole and chunked, prefix hit and miss, preemption forced, four sequences at once. */
import { LLM, type EngineOptions, type RequestOutput } from '@tenon/core';
import { describe, expect, it } from 'vitest';
import {
  firstWrongToken,
  goldens,
  logSoftmax,
  meanDifference,
  nearTie,
  type Golden,
  type GoldenCase,
} from './goldens.js';

const newTokens = 24;
const greedy = { temperature: 0, maxTokens: newTokens, ignoreEos: true };
const common = { device: 'cpu', skipTokenizerInit: true, blockSize: 16 } as const;

/** Ways of running the same requests that must not change an answer. */
const ways = {
  whole: {},
  chunked: { maxNumBatchedTokens: 16, maxNumSeqs: 8 },
  // 5 prompts of up to 100 tokens + 24 need 8 blocks each; 12 blocks hold one and a half of them
  preempted: { numGpuBlocksOverride: 14, maxModelLen: 192, enablePrefixCaching: false },
} as const;

const load = ({ path, hfOverrides }: Golden, options: EngineOptions) =>
  LLM.load(path, { ...common, hfOverrides, ...options });
const promptsOf = (golden: Golden) => golden.cases.map((one) => ({ tokenIds: [...one.prompt] }));
const tokensOf = (output: RequestOutput) => output.outputs[0]!.tokenIds;

/** The prompt with its golden answer; without it where rotation depends on the prompt's length, and a longer prompt is another. */
const forcedTokens = (golden: Golden, { prompt, greedy }: GoldenCase) =>
  golden.name === 'llama-dynamic' ? [...prompt] : [...prompt, ...greedy];

/** Log-probabilities the model gives to the tokens of a text, from prompt_logprobs. */
function tokenLogprobs(output: RequestOutput): { logprob: number; rank: number }[] {
  return output.promptLogprobs!.slice(1).map((entry) => entry![0]!);
}

describe.each(goldens.map((golden) => [golden.name, golden] as const))('%s', (_, golden) => {
  describe.each(Object.entries(ways))('%s', (way, options) => {
    it('gives the golden greedy tokens in float32', async () => {
      await using llm = await load(golden, { ...options, dtype: 'float32' });
      const outputs = await llm.generate(promptsOf(golden), greedy);
      for (const [i, one] of golden.cases.entries()) {
        expect(tokensOf(outputs[i]!)).toHaveLength(newTokens);
        expect(firstWrongToken(one, tokensOf(outputs[i]!), nearTie.float32), `case ${i}`).toBeUndefined();
      }
      if (way === 'preempted') expect(llm.engine.stats().numPreemptionsTotal).toBeGreaterThan(0);
    });

    it('gives every golden token its probability in bfloat16, and the same best token outside near-ties', async () => {
      await using llm = await load(golden, { ...options, dtype: 'bfloat16' });
      const forced = golden.cases.map((one) => ({ tokenIds: forcedTokens(golden, one) }));
      const outputs = await llm.generate(forced, { ...greedy, maxTokens: 1, promptLogprobs: 1 });
      for (const [i, one] of golden.cases.entries()) {
        const found = tokenLogprobs(outputs[i]!);
        const promptPart = found.slice(0, one.prompt.length - 1).map((entry) => entry.logprob);
        expect(meanDifference(promptPart, one.prompt_logprobs), `case ${i}`).toBeLessThanOrEqual(0.04);
        for (const [k, margin] of one.margins.entries()) {
          if (margin > nearTie.bfloat16 && one.prompt.length - 1 + k < found.length)
            expect(found[one.prompt.length - 1 + k]!.rank, `case ${i} token ${k}`).toBe(1);
        }
      }
    });
  });

  it('gives the golden logits in float32', async () => {
    await using llm = await load(golden, { dtype: 'float32', maxLogprobs: -1 });
    const outputs = await llm.generate(promptsOf(golden), { ...greedy, maxTokens: 1, logprobs: -1 });
    for (const [i, one] of golden.cases.entries()) {
      const expected = logSoftmax(one.last_logits);
      const entries = outputs[i]!.outputs[0]!.logprobs![0]!;
      expect(new Set(entries.map((entry) => entry.tokenId)).size).toBe(expected.length);
      const worst = Math.max(...entries.map((entry) => Math.abs(entry.logprob - expected[entry.tokenId]!)));
      expect(worst, `case ${i}`).toBeLessThanOrEqual(1e-3);
    }
  });

  it('answers a prefix hit as it answered the miss, bit for bit', async () => {
    await using llm = await load(golden, { dtype: 'bfloat16' });
    const params = { ...greedy, logprobs: 3 };
    const longest = promptsOf(golden).at(-1)!;
    const [miss] = await llm.generate([longest], params);
    const [hit] = await llm.generate([longest], params);
    expect(miss!.numCachedTokens).toBe(0);
    expect(hit!.numCachedTokens).toBe(Math.floor((longest.tokenIds.length - 1) / 16) * 16);
    expect(hit!.outputs).toEqual(miss!.outputs);
  });

  it('samples four sequences of one prompt as it would sample each alone', async () => {
    await using llm = await load(golden, { dtype: 'bfloat16' });
    const params = { temperature: 0.8, topP: 0.9, maxTokens: 12, ignoreEos: true, seed: 5 };
    const prompt = promptsOf(golden).at(-1)!;
    const [four] = await llm.generate([prompt], { ...params, n: 4 });
    for (const output of four!.outputs) {
      const [alone] = await llm.generate([prompt], { ...params, seed: 5 + output.index });
      expect(output.tokenIds).toEqual(alone!.outputs[0]!.tokenIds);
    }
    expect(new Set(four!.outputs.map((output) => output.tokenIds.join())).size).toBeGreaterThan(1);
  });
});
