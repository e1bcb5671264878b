// Decode behind a long prompt, against the time that reading weights and KV cache takes at the bandwidth measured in the same run.
// usage: node bench/long-context.mjs [--contexts 8192,32768] [--tokens 48] [--rounds 3] [--threads 2] [--block-size N] [--json FILE]
//        after bench/prepare.sh model
//        and cmake --build packages/backend-cpu/native/build --target read_bandwidth
// The model's positions are stretched to the context, so what it says is nonsense, yet the same nonsense on every path: the
// tokens after the prompt's prefill, after a hit in the prefix cache, and of two such requests in one batch must be equal.
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { LLM } from '@tenon/core';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const { values: options } = parseArgs({
  options: {
    contexts: { type: 'string', default: '8192,32768' },
    tokens: { type: 'string', default: '48' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    'block-size': { type: 'string' },
    folder: { type: 'string', default: at('../.models/smollm2-bf16') },
    json: { type: 'string' },
  },
});
const contexts = options.contexts.split(',').map(Number);
const numTokens = Number(options.tokens);
const maxModelLen = Math.max(...contexts) + numTokens + 16;

const config = JSON.parse(readFileSync(`${options.folder}/config.json`, 'utf8'));
/** The embeddings are tied: a step reads them once, as its head. */
const weightBytes = statSync(`${options.folder}/model.safetensors`).size;
const kvBytesPerToken = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const readBandwidth = () =>
  JSON.parse(
    execFileSync(at('../packages/backend-cpu/native/build/tests/read_bandwidth'), [options.threads], {
      encoding: 'utf8',
    }),
  ).median;

const llm = await LLM.load(options.folder, {
  device: 'cpu',
  dtype: 'bfloat16',
  maxModelLen,
  hfOverrides: { max_position_embeddings: maxModelLen },
  blockSize: options['block-size'] && Number(options['block-size']),
  kvCacheMemoryBytes:
    kvBytesPerToken * (contexts.reduce((sum, length) => sum + length, 0) + 4 * maxModelLen * 0.05 + 2048),
  maxNumSeqs: 4,
  skipTokenizerInit: true,
  enablePrefixCaching: true,
  numThreads: Number(options.threads),
});

async function generate(prompts, maxTokens) {
  const began = performance.now();
  const inputs = prompts.map((tokenIds) => ({ tokenIds }));
  const outputs = await llm.generate(inputs, { temperature: 0, maxTokens, ignoreEos: true });
  return {
    seconds: (performance.now() - began) / 1000,
    tokens: outputs.map((output) => output.outputs[0].tokenIds),
  };
}

const corpus = JSON.parse(readFileSync(at('corpus-tokens.json'), 'utf8'));
const results = [];
let wrong = 0;
for (const context of contexts) {
  const prompt = Array.from({ length: context }, (_, i) => corpus[i % corpus.length]);
  const cold = await generate([prompt], numTokens);
  const seconds = [];
  const bandwidths = [];
  for (let round = 0; round < Number(options.rounds); round++) {
    bandwidths.push(readBandwidth());
    const first = await generate([prompt], 1);
    const warm = await generate([prompt], numTokens);
    if (String(warm.tokens[0]) !== String(cold.tokens[0])) wrong++;
    seconds.push((warm.seconds - first.seconds) / (numTokens - 1));
  }
  const pair = await generate([prompt, prompt], numTokens);
  if (pair.tokens.some((tokens) => String(tokens) !== String(cold.tokens[0]))) wrong++;
  const bytes = weightBytes + kvBytesPerToken * (context + numTokens / 2);
  const gigabytesPerSecond = median(bandwidths);
  const result = {
    context,
    tokensPerSecond: 1 / median(seconds),
    bytesPerStep: bytes,
    readGigabytesPerSecond: gigabytesPerSecond,
    ofRoofline: bytes / (gigabytesPerSecond * 1e9) / median(seconds),
    prefillTokensPerSecond: context / cold.seconds,
  };
  results.push(result);
  console.log(
    `${context} tokens: ${result.tokensPerSecond.toFixed(1)} tokens/s; a step reads ${(bytes / 1e6).toFixed(0)} MB ` +
      `(${((kvBytesPerToken * context) / 1e6).toFixed(0)} MB of KV), memory gives ${gigabytesPerSecond.toFixed(1)} GB/s: ` +
      `${(100 * result.ofRoofline).toFixed(0)} % of the roofline; tokens equal on all paths: ${wrong === 0 ? 'yes' : 'NO'}`,
  );
}
await llm.close();
if (options.json) writeFileSync(options.json, `${JSON.stringify({ results, wrong }, null, 2)}\n`);
process.exitCode = wrong > 0 ? 1 : 0;
