/**
 * SmolLM2-135M-Instruct against what transformers answers (fixtures/make_smollm2.py). The model is 98 MB and not part of the
 * repository: `npm run model:smollm2` fetches it; without it this file is skipped.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LLM } from '@tenon/core';
import { describe, expect, it } from 'vitest';

const folder = fileURLToPath(new URL('../.models/', import.meta.url));
const file = existsSync(folder)
  ? readdirSync(folder).find((name) => /^SmolLM2-135M-Instruct.*\.gguf$/.test(name))
  : undefined;

interface Chat {
  readonly question: string;
  readonly prompt: readonly number[];
  readonly greedy: readonly number[];
  readonly margins: readonly number[];
}
const chats: Chat[] = JSON.parse(readFileSync(new URL('fixtures/smollm2.json', import.meta.url), 'utf8'));

// skipped where the model has not been fetched: see above
describe.skipIf(file === undefined)('SmolLM2-135M-Instruct (GGUF)', () => {
  it('tokenizes its chats as Hugging Face does', async () => {
    await using llm = await LLM.load(`${folder}${file}`, { device: 'cpu', maxModelLen: 1024 });
    for (const { question, prompt } of chats) {
      const text = llm.tokenizer!.applyChatTemplate([{ role: 'user', content: question }], {
        addGenerationPrompt: true,
      });
      expect(llm.tokenizer!.encode(text, { addSpecialTokens: false })).toEqual(prompt);
    }
  });

  it('gives the same greedy tokens in bfloat16 outside near-ties', async () => {
    await using llm = await LLM.load(`${folder}${file}`, {
      device: 'cpu',
      maxModelLen: 1024,
      dtype: 'bfloat16',
    });
    const forced = chats.map(({ prompt, greedy }) => ({ tokenIds: [...prompt, ...greedy] }));
    const outputs = await llm.generate(forced, {
      temperature: 0,
      maxTokens: 1,
      ignoreEos: true,
      promptLogprobs: 0,
    });
    let compared = 0;
    for (const [i, { question, prompt, greedy, margins }] of chats.entries()) {
      for (const [k, margin] of margins.entries()) {
        if (margin <= 0.15) continue;
        compared++;
        const entry = outputs[i]!.promptLogprobs![prompt.length + k]![0]!;
        expect(entry, `${question} token ${k}`).toMatchObject({ tokenId: greedy[k], rank: 1 });
      }
    }
    expect(compared).toBeGreaterThan(600);
  });

  it('answers in sensible English', async () => {
    await using llm = await LLM.load(`${folder}${file}`, { device: 'cpu', maxModelLen: 1024 });
    const [output] = await llm.chat([[{ role: 'user', content: 'What is the capital of France?' }]], {
      temperature: 0,
      maxTokens: 20,
    });
    expect(output!.outputs[0]!.text).toBe('The capital of France is Paris.');
    expect(output!.outputs[0]!.finishReason).toBe('stop');
  });
});
