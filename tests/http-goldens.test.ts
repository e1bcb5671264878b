/** Hugging Face's answers over HTTP: a server without tokenizer, token-id prompts, the real `openai` client. */
import OpenAI from 'openai';
import { describe, expect, it } from 'vitest';
import { firstWrongToken, goldens, meanDifference, nearTie } from './goldens.js';
import { serve } from './serve-process.js';

/** The first five of the README, with both sets of answers; each needs a server process. */
const served = goldens.filter(({ name }) => / (exact|rounded)$/.test(name));

describe.each(served.map((golden) => [golden.name, golden] as const))('%s over HTTP', (_, golden) => {
  it('gives the golden tokens and log-probabilities, streamed or not', async () => {
    await using server = await serve([
      golden.path,
      '--skip-tokenizer-init',
      '--dtype',
      'float32',
      '--served-model-name',
      'golden',
      '--hf-overrides',
      JSON.stringify(golden.hfOverrides),
    ]);
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none' });
    for (const one of golden.cases) {
      const body = {
        model: 'golden', prompt: [...one.prompt], max_tokens: 24, temperature: 0, ignore_eos: true, return_token_ids: true,
      }; // prettier-ignore
      type Choice = OpenAI.CompletionChoice & {
        token_ids: number[];
        prompt_logprobs: Record<string, { logprob: number }>[];
      };
      const whole = await client.completions.create({ ...body, prompt_logprobs: 0 } as typeof body);
      const choice = whole.choices[0] as Choice;
      expect(firstWrongToken(one, choice.token_ids, nearTie.float32)).toBeUndefined();
      const found = choice.prompt_logprobs
        .slice(1)
        .map((entry, i) => entry[String(one.prompt[i + 1])]!.logprob);
      expect(meanDifference(found, one.prompt_logprobs)).toBeLessThanOrEqual(1e-3);

      const streamed: number[] = [];
      for await (const chunk of await client.completions.create({ ...body, stream: true })) {
        streamed.push(...((chunk.choices[0] as Choice | undefined)?.token_ids ?? []));
      }
      expect(streamed).toEqual(choice.token_ids);
    }
  });
});
