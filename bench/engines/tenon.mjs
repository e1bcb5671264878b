// Tenon through its library. usage: node tenon.mjs MODEL THREADS
import { createInterface } from 'node:readline';
import { LLM } from '@tenon/core';

const [model, threads] = process.argv.slice(2);
const start = performance.now();
const llm = await LLM.load(model, {
  device: 'cpu',
  dtype: 'bfloat16',
  maxModelLen: 2048,
  skipTokenizerInit: true,
  enablePrefixCaching: false,
  numThreads: Number(threads),
});
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
say({
  ready: true,
  version: `tenon ${llm.engine.info.backend.version} (${llm.engine.info.backend.runtime.isa})`,
  loadSeconds: (performance.now() - start) / 1000,
});

for await (const line of createInterface({ input: process.stdin })) {
  const { prompts, maxTokens } = JSON.parse(line);
  const inputs = prompts.map((tokenIds) => ({ tokenIds }));
  const began = performance.now();
  const outputs = await llm.generate(inputs, { temperature: 0, maxTokens, ignoreEos: true });
  const seconds = (performance.now() - began) / 1000;
  say({ seconds, outputs: outputs.map((output) => output.outputs[0].tokenIds) });
}
await llm.close();
