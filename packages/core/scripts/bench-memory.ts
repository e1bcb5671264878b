/**
 * Whether a server's memory stays what it was: 20 000 requests over connections of their own, some cancelled, and the resident
 * memory as they go. Writes docs/memory.md and its plot. Needs `npm run build`; Linux.
 * `npx tsx packages/core/scripts/bench-memory.ts [--requests 20000] [--model PATH] [--print]` (`--print`: write no files)
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { linePlot } from './line-plot.js';

const { values: options } = parseArgs({
  options: {
    requests: { type: 'string', default: '20000' },
    model: { type: 'string' },
    print: { type: 'boolean', default: false },
  },
});
const numRequests = Number(options.requests);
const concurrency = 64;
const numSamples = 40;
/** What a process may have besides weights and KV cache. */
const maxOtherMib = 250;
/** How much the second half of the requests may add. */
const maxGrowthMib = 10;
const port = 18_000 + (process.pid % 1000);
const tenon = fileURLToPath(new URL('../bin/tenon.js', import.meta.url));

interface Server {
  readonly process: ChildProcess;
  readonly weightsMib: number;
  readonly kvMib: number;
}

async function startServer(): Promise<Server> {
  const args = [...(options.model === undefined ? [] : [options.model]), '--port', String(port)];
  const server = spawn(process.execPath, [tenon, 'serve', ...args, '--disable-access-log'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let printed = '';
  await new Promise<void>((resolve, reject) => {
    server.once('exit', () => reject(new Error(`no server; it printed: ${printed}`)));
    server.stdout.on('data', (data) => {
      printed += String(data);
      if (printed.includes('curl')) resolve();
    });
  });
  return {
    process: server,
    weightsMib: mebibytes(printed, /^model .* ([\d.]+) (MiB|GiB)$/m),
    kvMib: mebibytes(printed, /tokens, ([\d.]+) (MiB|GiB)/),
  };
}

function mebibytes(text: string, pattern: RegExp): number {
  const [, value, unit] = pattern.exec(text) ?? [];
  return Number(value) * (unit === 'GiB' ? 1024 : 1);
}

const residentMib = ({ process: { pid } }: Server): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

/** Numbers in [0, 1) that are the same in every run. */
let state = 1;
function random(): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}

function requestText(): string {
  const body = JSON.stringify({
    prompt: Array.from({ length: 1 + Math.floor(random() * 60) }, () => 3 + Math.floor(random() * 1000)),
    max_tokens: 1 + Math.floor(random() * 16),
    ignore_eos: true,
    stream: random() < 0.8,
  });
  return `POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
}

const counts = { whole: 0, cancelled: 0, failed: 0 };

/** One request; every fourth is dropped after some of its bytes. */
function runRequest(): Promise<void> {
  const maxBytes = random() < 0.25 ? random() * 2000 : Infinity;
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(requestText()));
    let numBytes = 0;
    let head = '';
    socket.on('data', (bytes) => {
      head ||= bytes.toString('latin1', 0, 15);
      numBytes += bytes.length;
      if (numBytes >= maxBytes) socket.destroy();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      const outcome = numBytes >= maxBytes ? 'cancelled' : head === 'HTTP/1.1 200 OK' ? 'whole' : 'failed';
      counts[outcome]++;
      resolve();
    });
  });
}

let numStarted = 0;
async function runUntil(end: number): Promise<void> {
  while (numStarted < end) {
    numStarted++;
    await runRequest();
  }
}

const server = await startServer();
const samples: (readonly [number, number])[] = [];
try {
  // The pages of the KV cache are touched in the background after the start.
  for (let before = 0; before < residentMib(server); await sleep(1000)) before = residentMib(server);
  samples.push([0, residentMib(server)]);
  for (let i = 1; i <= numSamples; i++) {
    const end = Math.round((numRequests * i) / numSamples);
    await Promise.all(Array.from({ length: concurrency }, () => runUntil(end)));
    samples.push([end, residentMib(server)]);
  }
} finally {
  server.process.kill('SIGTERM');
}

const { weightsMib, kvMib } = server;
const rows = samples.filter((_, i) => i % (numSamples / 8) === 0);
const table = [
  '| requests | resident (MiB) | besides weights and KV cache |',
  '| ---: | ---: | ---: |',
  ...rows.map(
    ([count, mib]) => `| ${count} | ${mib.toFixed(0)} | ${(mib - weightsMib - kvMib).toFixed(0)} |`,
  ),
].join('\n');
const other = samples.map(([, mib]) => mib - weightsMib - kvMib);
const growth = other.at(-1)! - other[numSamples / 2]!;
const summary =
  `${counts.whole} answered, ${counts.cancelled} cancelled, ${counts.failed} failed; weights ${weightsMib.toFixed(0)} MiB, ` +
  `KV cache ${kvMib.toFixed(0)} MiB; the second half added ${growth.toFixed(1)} MiB`;
console.log(`${table}\n\n${summary}`);
process.exitCode = counts.failed === 0 && Math.max(...other) <= maxOtherMib && growth <= maxGrowthMib ? 0 : 1;

const page = `# Memory

Resident memory of \`tenon serve\` with the embedded model over ${numRequests} requests, ${concurrency} at a time, each over a connection of its own, every fourth
dropped midway; written by \`npx tsx packages/core/scripts/bench-memory.ts\`.

${table}

![resident memory over requests](memory.svg)

${summary}.
`;
if (!options.print) {
  const docs = new URL('../../../docs/', import.meta.url);
  writeFileSync(new URL('memory.md', docs), page);
  const plot = linePlot({
    title: 'Memory besides weights and KV cache',
    xLabel: 'requests',
    yLabel: 'MiB',
    logX: false,
    series: [{ name: 'resident', points: samples.map(([count], i) => [count, other[i]!]) }],
  });
  writeFileSync(new URL('memory.svg', docs), plot);
}
