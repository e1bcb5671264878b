// Tenon through its library. usage: node tenon.mjs MODEL OPTIONS     (OPTIONS: of LLM.load, as JSON)
import { createInterface } from 'node:readline';
import { LLM } from '@tenon/core';

const [model, options] = process.argv.slice(2);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const start = performance.now();
const llm = await LLM.load(model, { skipTokenizerInit: true, ...JSON.parse(options) });
const { backend, device, maxNumSeqs, maxNumBatchedTokens, numBlocks, blockSize, enablePrefixCaching } =
  llm.engine.info;
say({
  ready: true,
  version: `tenon ${backend.version} (${backend.runtime.isa ?? backend.id})`,
  loadSeconds: (performance.now() - start) / 1000,
  settings: { device, maxNumSeqs, maxNumBatchedTokens, numBlocks, blockSize, enablePrefixCaching },
});

/** Of steps that only decode: how many, and the device's mean microseconds at work and at rest between them. */
function decodeSteps(steps) {
  const decoding = steps.filter(({ numTokens, numSeqs }) => numTokens === numSeqs);
  const mean = (name) => decoding.reduce((sum, step) => sum + step[name], 0) / decoding.length;
  return { count: decoding.length, computeMicros: mean('computeMicros'), idleMicros: mean('idleMicros') };
}

let steps = [];
llm.engine.onStep((step) => steps.push(step));
for await (const line of createInterface({ input: process.stdin })) {
  const { prompts, maxTokens } = JSON.parse(line);
  const inputs = prompts.map((tokenIds) => ({ tokenIds }));
  const lengths = Array.isArray(maxTokens) ? maxTokens : prompts.map(() => maxTokens);
  const params = lengths.map((length) => ({ temperature: 0, maxTokens: length, ignoreEos: true }));
  steps = [];
  const began = performance.now();
  const outputs = await llm.generate(inputs, params);
  const seconds = (performance.now() - began) / 1000;
  const tokens = outputs.map((output) => output.outputs[0].tokenIds);
  say({ seconds, outputs: tokens, decodeSteps: decodeSteps(steps) });
}
await llm.close();
