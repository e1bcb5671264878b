#!/usr/bin/env node
/**
 * Whether cancelled requests leave anything behind: streams that are dropped before, between and after their tokens, under
 * preemption, on a server whose backend computes nothing; its memory as it goes, and its gauges at the end.
 * Usage: node bench/cancel-soak.mjs [requests]; needs `npm run build`. Ends with status 1 if blocks or requests are left.
 */
import { execFileSync, spawn } from 'node:child_process';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';

const numRequests = Number(process.argv[2] ?? 10_000);
const concurrency = 64;
const numReports = 10;
const core = fileURLToPath(new URL('../packages/core', import.meta.url));
const port = 18_000 + (process.pid % 1000);

const server = spawn(
  process.execPath,
  [
    `${core}/bin/tenon.js`, 'serve', '--port', String(port), '--device', 'null', '--plugin', `${core}/tests/cli/fixtures/null-backend`,
    '--max-num-seqs', '32', '--max-model-len', '512', '--num-gpu-blocks-override', '40', '--watermark', '0', '--disable-access-log',
  ], // prettier-ignore
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
await new Promise((resolve) =>
  server.stdout.on('data', (text) => String(text).includes('curl') && resolve()),
);

/** Numbers in [0, 1) that are the same in every run. */
let state = 1;
function random() {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}

function completion() {
  const body = JSON.stringify({
    prompt: Array.from({ length: 1 + Math.floor(random() * 100) }, (_, i) => 3 + (i % 7)),
    max_tokens: 1 + Math.floor(random() * 60),
    ignore_eos: true,
    stream: random() < 0.8,
  });
  return `POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
}

const counts = { whole: 0, cancelled: 0, failed: 0 };

/** One request, dropped after some milliseconds, after some bytes, or not at all. */
function runRequest() {
  const afterMs = random() < 0.25 ? random() * 8 : Infinity;
  const afterBytes = random() < 0.5 ? random() * 8000 : Infinity;
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(completion()));
    let numBytes = 0;
    let isCancelled = false;
    let head = '';
    const cancel = () => {
      isCancelled = true;
      socket.destroy();
    };
    const timer = afterMs === Infinity ? undefined : setTimeout(cancel, afterMs);
    socket.on('data', (bytes) => {
      head ||= bytes.toString('latin1', 0, 15);
      numBytes += bytes.length;
      if (numBytes >= afterBytes) cancel();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      counts[isCancelled ? 'cancelled' : head === 'HTTP/1.1 200 OK' ? 'whole' : 'failed']++;
      resolve();
    });
  });
}

const memoryMib = () => Number(execFileSync('ps', ['-o', 'rss=', '-p', String(server.pid)])) / 1024;

async function gauge(name) {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return Number(new RegExp(`^tenon:${name}\\{.*\\} (\\S+)`, 'm').exec(text)?.[1]);
}

let next = 0;
async function runUntil(end) {
  while (next < end) {
    next++;
    await runRequest();
  }
}

console.log('requests  memory');
console.log(`${String(0).padStart(8)}  ${memoryMib().toFixed(0)} MiB`);
for (let i = 1; i <= numReports; i++) {
  const end = Math.round((numRequests * i) / numReports);
  await Promise.all(Array.from({ length: concurrency }, () => runUntil(end)));
  console.log(`${String(end).padStart(8)}  ${memoryMib().toFixed(0)} MiB`);
}
await new Promise((resolve) => setTimeout(resolve, 500));

const left = {
  running: await gauge('num_requests_running'),
  waiting: await gauge('num_requests_waiting'),
  kvCacheUsage: await gauge('kv_cache_usage_perc'),
};
console.log(counts, 'preemptions', await gauge('num_preemptions_total'), 'left', left);
server.kill('SIGTERM');
process.exitCode = counts.failed === 0 && Object.values(left).every((value) => value === 0) ? 0 : 1;
