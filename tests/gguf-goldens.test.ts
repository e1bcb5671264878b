/** GGUF files of each family against transformers on the dequantized weights (fixtures/make_gguf_goldens.py), by the goldens' rule. */
import { LLM } from '@tenon/core';
import { describe, expect, it } from 'vitest';
import { firstWrongToken, ggufGoldens, logSoftmax, meanDifference, nearTie } from './goldens.js';

const greedy = { temperature: 0, maxTokens: 24, ignoreEos: true };

describe.each(ggufGoldens)('$name', ({ path, cases }) => {
  const prompts = cases.map(({ prompt }) => ({ tokenIds: prompt }));
  const load = (dtype: string) =>
    LLM.load(path, { device: 'cpu', dtype, skipTokenizerInit: true, maxLogprobs: -1 });

  it('holds its matrices as quantized as the file', async () => {
    const text = await LLM.explain(path, { device: 'cpu' });
    expect(text).toMatch(/weights .*\(int[48]:g/);
    expect(text).not.toMatch(/bf16 [\d.]+ %|^unpacked/m);
    expect(await LLM.explain(path, { device: 'cpu', quantization: 'none' })).toMatch(/weights .*\(bf16/);
  });

  it('gives the golden logits and tokens in float32', async () => {
    await using llm = await load('float32');
    const outputs = await llm.generate(prompts, { ...greedy, logprobs: -1 });
    for (const [i, one] of cases.entries()) {
      const { tokenIds, logprobs } = outputs[i]!.outputs[0]!;
      const expected = logSoftmax(one.last_logits);
      const worst = Math.max(
        ...logprobs![0]!.map((entry) => Math.abs(entry.logprob - expected[entry.tokenId]!)),
      );
      expect(worst, `case ${i}`).toBeLessThanOrEqual(1e-3);
      expect(firstWrongToken(one, tokenIds, nearTie.float32), `case ${i}`).toBeUndefined();
    }
  });

  it('gives every prompt token its probability in bfloat16', async () => {
    await using llm = await load('bfloat16');
    const outputs = await llm.generate(prompts, { ...greedy, promptLogprobs: 0 });
    for (const [i, one] of cases.entries()) {
      const found = outputs[i]!.promptLogprobs!.slice(1).map((entry) => entry![0]!.logprob);
      expect(meanDifference(found, one.prompt_logprobs), `case ${i}`).toBeLessThanOrEqual(0.04);
    }
  });
});
