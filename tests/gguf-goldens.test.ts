/** GGUF files of each family against transformers on the dequantized weights (fixtures/make_gguf_goldens.py), by the goldens' rule. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LLM } from '@tenon/core';
import { describe, expect, it } from 'vitest';
import { firstWrongToken, logSoftmax, meanDifference, nearTie, type GoldenCase } from './goldens.js';

const folder = fileURLToPath(new URL('fixtures/gguf/', import.meta.url));
const names = readdirSync(folder)
  .filter((name) => name.endsWith('.gguf'))
  .map((name) => name.replace('.gguf', ''));
const greedy = { temperature: 0, maxTokens: 24, ignoreEos: true };

describe.each(names)('%s', (name) => {
  const { cases } = JSON.parse(readFileSync(`${folder}${name}.json`, 'utf8')) as { cases: GoldenCase[] };
  const prompts = cases.map(({ prompt }) => ({ tokenIds: prompt }));
  const load = (dtype: string) =>
    LLM.load(`${folder}${name}.gguf`, { device: 'cpu', dtype, skipTokenizerInit: true, maxLogprobs: -1 });

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
