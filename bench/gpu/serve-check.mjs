#!/usr/bin/env node
// Does `tenon serve --device auto` pick the GPU and serve clients? Checks the device, answers over plain HTTP and those of Python's `openai`
// where that is installed; measures from process start to the first answer over HTTP. Ends with status 1 where something is wrong.
// usage: node bench/gpu/serve-check.mjs [MODEL_DIR] [--expect cuda] [--starts 3] [--python python3]     (by default, the embedded model)
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { median } from './works.mjs';

const packageFolder = (name) =>
  dirname(createRequire(import.meta.url).resolve(`@tenon/${name}/package.json`));
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    expect: { type: 'string', default: 'cuda' },
    starts: { type: 'string', default: '3' },
    python: { type: 'string', default: 'python3' },
    plugin: { type: 'string', multiple: true, default: [] },
  },
});
const model = positionals[0] ?? join(packageFolder('model-stories'), 'model');
const hasTokenizer = existsSync(join(model, 'tokenizer.json'));
const readyWithinMs = 120_000;

/** A server on a free port, ready: its address, when its process started, and how to end it. */
async function startServer() {
  const port = await freePort();
  const args = ['serve', model, '--served-model-name', 'm', '--device', 'auto', '--port', String(port)];
  if (!hasTokenizer) args.push('--skip-tokenizer-init', '--max-model-len', '9216');
  for (const plugin of options.plugin) args.push('--plugin', plugin);
  const startMs = performance.now();
  const child = spawn(process.execPath, [join(packageFolder('core'), 'bin/tenon.js'), ...args]);
  process.once('exit', () => child.kill('SIGKILL'));
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (printed += text));
  const url = `http://127.0.0.1:${port}`;
  const isHealthy = () => fetch(`${url}/health`).then(({ ok }) => ok, () => false); // prettier-ignore
  while (!(await isHealthy())) {
    assert(child.exitCode === null, `the server ended with ${child.exitCode}: ${printed}`);
    assert(performance.now() - startMs < readyWithinMs, `the server is not ready: ${printed}`);
    await sleep(5);
  }
  const stop = async () => {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  };
  return { url, startMs, stop };
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function post(url, path, body) {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${url}/v1/${path}`, { method: 'POST', headers, body: JSON.stringify({ model: 'm', ...body }) }); // prettier-ignore
  const text = await response.text();
  assert(response.ok, `${path}: ${response.status} ${text.slice(0, 500)}`);
  return text;
}

const numTokens = 24;
const greedy = { max_tokens: numTokens, temperature: 0, ignore_eos: true, return_token_ids: true };
const prompt = Array.from({ length: 40 }, (_, i) => 20 + ((i * 37) % 400));

/** The answer to the prompt, whole and as a stream; a chat where the model has a tokenizer. */
async function checkWithFetch(url) {
  const { choices, usage } = JSON.parse(await post(url, 'completions', { prompt, ...greedy }));
  const tokens = choices[0].token_ids;
  assert.equal(tokens.length, numTokens);
  assert.equal(usage.completion_tokens, numTokens);
  const stream = await post(url, 'completions', { prompt, stream: true, ...greedy });
  const events = stream.split('\n').filter((line) => line.startsWith('data: {'));
  const streamed = events.flatMap((line) => JSON.parse(line.slice(6)).choices[0]?.token_ids ?? []);
  assert.deepEqual(streamed, tokens, 'the stream has other tokens');
  if (hasTokenizer) await checkChat(url);
}

async function checkChat(url) {
  const messages = [{ role: 'user', content: 'Tell me a story about a dog.' }];
  const { choices } = JSON.parse(await post(url, 'chat/completions', { messages, max_tokens: 40, temperature: 0 })); // prettier-ignore
  const { content } = choices[0].message;
  assert(content.trim().length > 20, `the chat answers '${content}'`);
  console.log(`chat: ${content.trim().replaceAll(/\s+/g, ' ')}`);
}

/** Whether the client was there. */
function checkWithOpenai(url) {
  if (spawnSync(options.python, ['-c', 'import openai'], { stdio: 'ignore' }).status !== 0) return false;
  const script = fileURLToPath(new URL('../../scripts/openai-python-check.py', import.meta.url));
  const { status, stdout, stderr } = spawnSync(options.python, [script, `${url}/v1`], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(status, 0, `the openai client failed: ${stdout} ${stderr}`);
  console.log(`Python's openai client: ${stdout.trim().split('\n').length} checks hold`);
  return true;
}

const seconds = { ready: [], firstAnswer: [] };
const numStarts = Number(options.starts);
for (let start = 0; start < numStarts; start++) {
  const { url, startMs, stop } = await startServer();
  seconds.ready.push((performance.now() - startMs) / 1000);
  await post(url, 'completions', { prompt, ...greedy, max_tokens: 1 });
  seconds.firstAnswer.push((performance.now() - startMs) / 1000);
  if (start === numStarts - 1) {
    const { backend } = (await (await fetch(`${url}/v1/models`)).json()).data[0];
    console.log(`--device auto picked ${backend.device} of ${backend.id} ${backend.version}`);
    assert.equal(backend.id, options.expect, `--device auto picked ${backend.id}`);
    await checkWithFetch(url);
    if (hasTokenizer && !checkWithOpenai(url))
      console.log(`${options.python} has no module openai: checked by plain HTTP only`);
  }
  await stop();
}
for (const [what, all] of Object.entries(seconds))
  console.log(`process start to ${what}: median ${median(all).toFixed(2)} s (${all.map((one) => one.toFixed(2)).join(', ')})`); // prettier-ignore
