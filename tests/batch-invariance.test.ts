/** The same request gives the same answer, whatever runs beside it: real weights (the embedded model), real kernels. */
import { fileURLToPath } from 'node:url';
import { LLM, type SamplingParams } from '@tenon/core';
import { describe, expect, it } from 'vitest';

const model = fileURLToPath(new URL('../packages/model-stories/model', import.meta.url));
const nouns = ['dog', 'boat', 'garden', 'moon', 'clock', 'river', 'bird', 'hat'];
const quantizedModel = fileURLToPath(new URL('fixtures/gguf/qwen2-Q4_1.gguf', import.meta.url));
const common = { device: 'cpu', dtype: 'bfloat16', blockSize: 16, maxModelLen: 512 } as const;

interface Request {
  readonly prompt: string | { readonly tokenIds: readonly number[] };
  readonly params: Partial<SamplingParams>;
}

/** 32 requests, greedy and sampled in every way, with prompts from 3 to 150 tokens. */
const requests: readonly Request[] = Array.from({ length: 32 }, (_, i) => {
  const noun = nouns[i % nouns.length]!;
  const prompt =
    `Once upon a time there was a little ${noun}. `.repeat(1 + (i % 5) * 3) + `The ${noun} said number ${i}`;
  const sampled = {
    temperature: 0.5 + (i % 4) * 0.3,
    topP: 0.8 + (i % 3) * 0.1,
    topK: (i % 5) * 10,
    minP: (i % 2) * 0.02,
  };
  const penalties =
    i % 6 === 0 ? { presencePenalty: 0.5, frequencyPenalty: 0.3, repetitionPenalty: 1.1 } : {};
  const bans = i % 4 === 1 ? { badWords: ['little', 'once upon', 'very'] } : {};
  const params: Partial<SamplingParams> = {
    maxTokens: 24,
    ignoreEos: true,
    ...(i % 3 === 0 ? { temperature: 0 } : { ...sampled, seed: i }),
    ...penalties,
    ...bans,
  };
  return { prompt, params };
});

/** The same for a model of 256 tokens that has no text. */
const tokenRequests: readonly Request[] = requests.map(({ params }, i) => ({
  prompt: { tokenIds: Array.from({ length: 3 + ((i * 37) % 150) }, (_, k) => (i * 91 + k * k * 7) % 253) },
  params: { ...params, badWords: [] },
}));

async function answers(
  path: string,
  requests: readonly Request[],
  options: object,
  together: boolean,
): Promise<string[]> {
  await using llm = await LLM.load(path, { ...common, ...options });
  if (!together) {
    const texts = [];
    for (const { prompt, params } of requests) texts.push((await llm.generate([prompt], params))[0]!);
    return texts.map((output) => output.outputs[0]!.tokenIds.join());
  }
  const outputs = await llm.generate(
    requests.map(({ prompt }) => prompt),
    requests.map(({ params }) => params),
  );
  return outputs.map((output) => output.outputs[0]!.tokenIds.join());
}

describe('the same request', () => {
  it.each([
    ['embedded model', model, requests, {}],
    ['quantized model', quantizedModel, tokenRequests, { skipTokenizerInit: true }],
  ] as const)(
    'has the same answer alone, in a batch of 32, chunked, cached, preempted, and on one thread (%s)',
    async (_, path, own, always) => {
      const together = (options: object) => answers(path, own, { ...always, ...options }, true);
      const alone = await answers(path, own, { ...always, enablePrefixCaching: false }, false);
      expect(new Set(alone).size).toBeGreaterThan(20);
      expect(await together({ enablePrefixCaching: false, maxNumSeqs: 32 })).toEqual(alone);
      expect(await together({ enablePrefixCaching: false, maxNumBatchedTokens: 40, maxNumSeqs: 32 })).toEqual(
        alone,
      );
      expect(await together({ enablePrefixCaching: true })).toEqual(alone);
      expect(await together({ numGpuBlocksOverride: 40, enablePrefixCaching: false })).toEqual(alone);
      expect(await together({ numThreads: 1, enablePrefixCaching: false })).toEqual(alone);
    },
  );
});
