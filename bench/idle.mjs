#!/usr/bin/env node
/**
 * CPU time of an idle server: after its start, after load, and after requests that were cancelled midway.
 * Usage: node bench/idle.mjs [seconds = 30] [model]; needs `npm run build`; Linux. Ends with status 1 if any of them is 0.05 % or more.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const seconds = Number(process.argv[2] ?? 30);
const model = process.argv.slice(3);
const numRequests = 64;
const maxPercent = 0.05;
const tenon = fileURLToPath(new URL('../packages/core/bin/tenon.js', import.meta.url));
const port = 18_000 + (process.pid % 1000);

const server = spawn(
  process.execPath,
  [tenon, 'serve', ...model, '--port', String(port), '--disable-access-log'],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
await new Promise((resolve) =>
  server.stdout.on('data', (text) => String(text).includes('curl') && resolve()),
);

/** CPU milliseconds of all threads so far. */
function cpuMs() {
  const tasks = readdirSync(`/proc/${server.pid}/task`);
  const times = tasks.map((tid) =>
    Number(readFileSync(`/proc/${server.pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0]),
  );
  return times.reduce((sum, ns) => sum + ns, 0) / 1e6;
}

/**
 * Waits for what is done once, then measures: the pages of the KV cache are touched in the background, and within 20 s of
 * idleness V8 collects the garbage of the start, which takes 0.1 s.
 */
async function measureIdle(when) {
  for (let before = -Infinity; cpuMs() - before > 5; await sleep(15_000)) before = cpuMs();
  const before = cpuMs();
  await sleep(seconds * 1000);
  const percent = (cpuMs() - before) / (seconds * 10);
  console.log(`${when}: ${percent.toFixed(3)} % CPU over ${seconds} s`);
  if (percent >= maxPercent) process.exitCode = 1;
}

/** A streamed answer, left after `maxBytes`. */
function stream(maxBytes) {
  const body = JSON.stringify({ prompt: [5, 6, 7], max_tokens: 200, ignore_eos: true, stream: true });
  const request = `POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(request));
    let numBytes = 0;
    socket.on('data', (bytes) => {
      numBytes += bytes.length;
      if (numBytes > maxBytes) socket.destroy();
    });
    socket.on('close', resolve).on('error', reject);
  });
}

const streams = (maxBytes) => Promise.all(Array.from({ length: numRequests }, () => stream(maxBytes)));

await measureIdle('after the start');
await streams(Infinity);
await measureIdle(`after ${numRequests} requests`);
await streams(2000);
await measureIdle(`after ${numRequests} cancelled requests`);
server.kill('SIGTERM');
