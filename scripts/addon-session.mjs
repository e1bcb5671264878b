/**
 * A short session of the embedded model, for scripts/sanitize.sh: several requests at once, streams that are left, every
 * sampling path, loading and closing twice. The addon is the file that ADDON names (see replace-addon.cjs).
 */
import { fileURLToPath } from 'node:url';
import { LLM } from '@tenon/core';

const model = new URL('../packages/model-stories/model', import.meta.url);

const prompts = ['Once upon a time', 'Tom had a red', 'The dog', 'A'.repeat(300)];
const sampling = [
  { maxTokens: 24, temperature: 0 },
  { maxTokens: 24, temperature: 1, topP: 0.9, topK: 40, seed: 1, n: 3, logprobs: 3 },
  {
    maxTokens: 16,
    temperature: 0.8,
    minP: 0.05,
    repetitionPenalty: 1.2,
    presencePenalty: 0.5,
    promptLogprobs: 1,
  },
  { maxTokens: 16, temperature: 1, logitBias: { 5: 2 }, badWords: ['the'], stop: ['.'] },
];

async function session() {
  const llm = await LLM.load(fileURLToPath(model), { maxModelLen: 512 });
  try {
    const outputs = await Promise.all(sampling.map((params) => llm.generate(prompts, params)));
    const numOutputs = outputs.flat().flatMap((output) => output.outputs).length;
    if (numOutputs !== prompts.length * (1 + 3 + 1 + 1)) throw new Error(`${numOutputs} outputs`);
    for await (const output of llm.stream(prompts[0], { maxTokens: 200 }))
      if (output.outputs[0].text.length > 20) break;
    return outputs[0][0].outputs[0].text;
  } finally {
    await llm.close();
  }
}

const first = await session();
const second = await session();
if (first !== second || first.length < 20) throw new Error(`two answers: ${first} | ${second}`);
console.log(first);
