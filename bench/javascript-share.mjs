#!/usr/bin/env node
/**
 * JavaScript's share of a decode step while a server streams to many clients: CPU time of its threads per step, against the time of a step.
 * Usage: node bench/javascript-share.mjs [model] [streams] [tokens each]; needs `npm run build`; Linux.
 *
 * The kernel counts the CPU time of each thread. Those that are bound to one CPU compute; the first is the main thread (HTTP, text);
 * what remains is the engine's thread (scheduler, steps) with the helpers of V8's garbage collector.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const [model = '.models/smollm2-bf16', numStreams = '32', numTokens = '400'] = process.argv.slice(2);
const maxShare = 0.05;
const tenon = fileURLToPath(new URL('../packages/core/bin/tenon.js', import.meta.url));
const port = 18_000 + (process.pid % 1000);

const options = ['--port', String(port), '--max-num-seqs', numStreams, '--disable-access-log'];
const server = spawn(process.execPath, [tenon, 'serve', model, ...options], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
await new Promise((resolve) =>
  server.stdout.on('data', (text) => String(text).includes('curl') && resolve()),
);
// The pages of the KV cache are touched in the background after the start.
await sleep(4000);

const body = JSON.stringify({
  messages: [{ role: 'user', content: 'Tell me a story.' }],
  max_tokens: Number(numTokens),
  ignore_eos: true,
  stream: true,
});
const request = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;

/** Resolves with the bytes of the answer when it has ended. */
function stream() {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(request));
    let numBytes = 0;
    socket.on('data', (bytes) => (numBytes += bytes.length));
    socket.on('end', () => resolve(numBytes)).on('error', reject);
  });
}

const readTask = (tid, file) => readFileSync(`/proc/${server.pid}/task/${tid}/${file}`, 'utf8');

/** CPU milliseconds so far, by kind of thread. */
function cpuTimes() {
  const times = { main: 0, engine: 0, compute: 0 };
  for (const tid of readdirSync(`/proc/${server.pid}/task`)) {
    const isBound = !/Cpus_allowed_list:\s+\d+[-,]/.test(readTask(tid, 'status'));
    const kind = tid === String(server.pid) ? 'main' : isBound ? 'compute' : 'engine';
    times[kind] += Number(readTask(tid, 'schedstat').split(' ')[0]) / 1e6;
  }
  return times;
}

async function numSteps() {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return Number(/^tenon:iteration_tokens_total_count\{.*\} (\S+)/m.exec(text)[1]);
}

/** Milliseconds per step: elapsed, and CPU by kind of thread; from the middle of the answers, when all are being decoded. */
async function round() {
  const streams = Promise.all(Array.from({ length: Number(numStreams) }, stream));
  await sleep(1500);
  const [stepsBefore, cpuBefore, start] = [await numSteps(), cpuTimes(), performance.now()];
  await sleep(4000);
  const [ms, cpu] = [performance.now() - start, cpuTimes()];
  const steps = (await numSteps()) - stepsBefore;
  const answers = await streams;
  if (answers.some((numBytes) => numBytes < 20 * Number(numTokens)))
    throw new Error('an answer is too short');
  const perStep = (kind) => (cpu[kind] - cpuBefore[kind]) / steps;
  return { step: ms / steps, main: perStep('main'), engine: perStep('engine'), compute: perStep('compute') };
}

await round();
const shares = [];
for (let i = 0; i < 3; i++) {
  const { step, main, engine, compute } = await round();
  const percent = (ms) => `${((100 * ms) / step).toFixed(1)} %`;
  shares.push(engine / step);
  console.log(
    `${numStreams} streams: step ${step.toFixed(2)} ms; engine thread ${engine.toFixed(3)} ms = ${percent(engine)}, ` +
      `main thread ${main.toFixed(3)} ms = ${percent(main)}, compute threads ${percent(compute)}`,
  );
}
server.kill('SIGTERM');
process.exitCode = shares.toSorted((a, b) => a - b)[1] <= maxShare ? 0 : 1;
