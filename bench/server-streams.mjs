#!/usr/bin/env node
/**
 * How many tokens per second the server can stream, with a backend that computes nothing: HTTP, JSON, detokenizing and
 * scheduling alone. Usage: node bench/server-streams.mjs [connections] [tokens each]; needs `npm run build`. Ends with status 1
 * if the median is below 40 000.
 *
 * The client counts events in raw bytes, so that it costs little of the machine that it measures. The server counts the tokens.
 */
import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const numConnections = Number(process.argv[2] ?? 256);
const numTokens = Number(process.argv[3] ?? 500);
const core = fileURLToPath(new URL('../packages/core', import.meta.url));
const minTokensPerSecond = 40_000;
const port = 18_000 + (process.pid % 1000);

const server = spawn(
  process.execPath,
  [
    `${core}/bin/tenon.js`, 'serve', '--port', String(port), '--device', 'null', '--plugin', `${core}/tests/cli/fixtures/null-backend`,
    '--max-num-seqs', String(numConnections), '--disable-access-log',
  ], // prettier-ignore
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
await new Promise((resolve) =>
  server.stdout.on('data', (text) => String(text).includes('curl') && resolve()),
);

const body = JSON.stringify({
  messages: [{ role: 'user', content: 'Tell me a story.' }],
  max_tokens: numTokens,
  ignore_eos: true,
  stream: true,
});
const request = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
const event = Buffer.from('"finish_reason"');
const end = Buffer.from('data: [DONE]');

/** Events of one answer, which has to be complete. */
function stream() {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(request));
    let numEvents = 0;
    let isComplete = false;
    socket.on('data', (bytes) => {
      isComplete ||= bytes.includes(end);
      for (let at = bytes.indexOf(event); at >= 0; at = bytes.indexOf(event, at + 1)) numEvents++;
    });
    socket.on('end', () => (isComplete ? resolve(numEvents) : reject(new Error('an answer is incomplete'))));
    socket.on('error', reject);
  });
}

async function numGenerated() {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return Number(/^tenon:generation_tokens_total\{.*\} (\S+)/m.exec(text)[1]);
}

async function round() {
  const tokensBefore = await numGenerated();
  const cpuBefore = cpuSeconds(server.pid);
  const startMs = performance.now();
  const counts = await Promise.all(Array.from({ length: numConnections }, stream));
  const seconds = (performance.now() - startMs) / 1000;
  const events = counts.reduce((sum, count) => sum + count, 0);
  const cpu = cpuSeconds(server.pid) - cpuBefore;
  return { seconds, events, cpu, tokens: (await numGenerated()) - tokensBefore };
}

/** User and system time so far. */
function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

await round();
const speeds = [];
for (let i = 0; i < 3; i++) {
  const { seconds, events, cpu, tokens } = await round();
  speeds.push(tokens / seconds);
  console.log(
    `${numConnections} streams: ${Math.round(tokens / seconds)} tokens/s (${events} events in ${seconds.toFixed(2)} s), ` +
      `server CPU ${((cpu / tokens) * 1e6).toFixed(1)} µs per token`,
  );
}
server.kill('SIGKILL');
process.exitCode = speeds.toSorted((a, b) => a - b)[1] >= minTokensPerSecond ? 0 : 1;
