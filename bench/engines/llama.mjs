// llama.cpp through node-llama-cpp's prebuilt binary. usage: node llama.mjs MODEL.gguf THREADS (with node-llama-cpp in NODE_PATH's reach)
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [model, threads, root] = process.argv.slice(2);
const entry = createRequire(`${root}/`).resolve('node-llama-cpp');
const { getLlama } = await import(pathToFileURL(entry).href);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

const start = performance.now();
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: Number(threads) });
const loaded = await llama.loadModel({ modelPath: model });
say({
  ready: true,
  version: `llama.cpp ${llama.llamaCppRelease?.release ?? ''}`,
  loadSeconds: (performance.now() - start) / 1000,
});

async function generate(sequence, prompt, maxTokens) {
  const tokens = [];
  for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    tokens.push(token);
    if (tokens.length === maxTokens) break;
  }
  return tokens;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { prompts, maxTokens } = JSON.parse(line);
  const longest = Math.max(...prompts.map((prompt) => prompt.length));
  const context = await loaded.createContext({
    sequences: prompts.length,
    contextSize: longest + maxTokens + 16,
    threads: Number(threads),
    batchSize: 512,
  });
  const sequences = prompts.map(() => context.getSequence());
  const began = performance.now();
  const outputs = await Promise.all(prompts.map((prompt, i) => generate(sequences[i], prompt, maxTokens)));
  const seconds = (performance.now() - began) / 1000;
  await context.dispose();
  say({ seconds, outputs });
}
process.exit(0);
