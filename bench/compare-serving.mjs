// Tenon's server beside its peers', over HTTP, on the same weights, prompts and lengths, in one run: rounds alternate between the
// servers, answers are checked, medians of the rounds and ratios are printed.
// usage: node bench/compare-serving.mjs [--servers tenon,llama-native,vllm] [--rounds 3] [--threads 2] [--only streams-8,mixed-64]
//        [--json FILE]      after bench/prepare.sh and npm run build; vLLM takes a minute and more to start
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import {
  interTokenMs,
  Random,
  runLoad,
  serveResult,
  streamRequest,
  summarize,
} from '../packages/core/dist/benchmark/index.js';
import { describeServer, serverNames, startServer } from './engines/servers.mjs';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const { values: options } = parseArgs({
  options: {
    servers: { type: 'string', default: serverNames.join(',') },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    only: { type: 'string' },
    json: { type: 'string' },
    folder: { type: 'string', default: at('../.models/smollm2-bf16') },
    gguf: { type: 'string', default: at('../.models/smollm2-bf16.gguf') },
    peers: { type: 'string', default: at('../.peers') },
  },
});

/** Prompts are stretches of real text (token ids of the model); `round` moves where they start. */
const corpus = JSON.parse(readFileSync(at('corpus-tokens.json'), 'utf8'));
function request(i, round, numPromptTokens, numOutputTokens) {
  const start = (i * 97 + round * 31) % (corpus.length - Math.min(numPromptTokens, corpus.length - 1));
  const prompt = Array.from({ length: numPromptTokens }, (_, j) => corpus[(start + j) % corpus.length]);
  return { prompt, numPromptTokens, numOutputTokens };
}

const streams = (count, round) => Array.from({ length: count }, (_, i) => request(i, round, 128, 128));
function mixed(round) {
  const random = new Random(1);
  return Array.from({ length: 64 }, (_, i) =>
    request(i, round, random.integer(32, 256), random.integer(32, 256)),
  );
}

const longPromptTokens = 4000;
/** Threads of some engines spin for a while after their last work, and would slow the next server down. */
const settleMs = 2000;

/** Slots are llama-server's: its context is divided among them. */
const measures = {
  'streams-8': { slots: 64, tokensPerSlot: 640, run: (server, round) => loadWith(server, streams(8, round)) },
  'streams-32': {
    slots: 64,
    tokensPerSlot: 640,
    run: (server, round) => loadWith(server, streams(32, round)),
  },
  'mixed-64': { slots: 64, tokensPerSlot: 640, run: (server, round) => loadWith(server, mixed(round)) },
  'long-prompt': { slots: 9, tokensPerSlot: 4352, run: loadWithLongPrompt },
};

const targetOf = (server) => ({
  url: new URL(`${server.url}/v1/completions`),
  backend: 'openai',
  model: 'm',
  headers: {},
  ignoreEos: true,
  temperature: 0,
  extraBody: {},
});

async function loadWith(server, requests) {
  const offsetsMs = requests.map(() => 0);
  return figures(await runLoad(targetOf(server), requests, { offsetsMs, maxConcurrency: Infinity }));
}

function figures({ traces, durationMs }) {
  check(traces);
  const metrics = ['ttft', 'tpot', 'itl', 'e2el'];
  const result = serveResult(traces, { durationMs, percentiles: [99], metrics, goodput: undefined });
  const tokensPerPiece =
    result.total_output_tokens / traces.reduce((sum, { pieceMs }) => sum + pieceMs.length, 0);
  return { ...result, tokensPerPiece, texts: traces.map(({ text }) => text) };
}

function check(traces) {
  const failure = traces.find(({ error }) => error !== undefined);
  if (failure !== undefined) throw new Error(`an answer is not what was asked for: ${failure.error}`);
}

/** Eight streams run when a long prompt arrives. First it runs alone, to say how long one of its chunks takes. */
async function loadWithLongPrompt(server, round) {
  const target = targetOf(server);
  const long = request(50, round, longPromptTokens, 2);
  const alone = await streamRequest(target, long);
  const running = Array.from({ length: 8 }, (_, i) => request(i, round, 128, 256));
  const load = runLoad(target, running, { offsetsMs: running.map(() => 0), maxConcurrency: Infinity });
  await sleep(1500);
  const beside = await streamRequest(target, long);
  const { traces, durationMs } = await load;
  check([alone, beside]);
  const whileItRan = traces.flatMap((trace) => gapsDuring(trace, beside.startMs, beside.pieceMs[0]));
  const chunkMs = (alone.pieceMs[0] - alone.startMs) / Math.ceil(longPromptTokens / server.chunk);
  const during = summarize(whileItRan, [99]);
  return {
    ...figures({ traces, durationMs }),
    chunkMs,
    longTtftMs: beside.pieceMs[0] - beside.startMs,
    median_itl_during_ms: during.median,
    p99_itl_during_ms: during.percentiles.get(99),
    max_itl_ms: Math.max(...traces.flatMap(interTokenMs)),
  };
}

/** Gaps between a stream's tokens that touch an interval. */
function gapsDuring({ pieceMs }, fromMs, toMs) {
  return pieceMs
    .slice(1)
    .flatMap((time, i) => (time > fromMs && pieceMs[i] < toMs ? [time - pieceMs[i]] : []));
}

const columns = {
  'output tok/s': 'output_throughput',
  'TTFT p50': 'median_ttft_ms',
  'TTFT p99': 'p99_ttft_ms',
  'ITL p50': 'median_itl_ms',
  'ITL p99': 'p99_itl_ms',
};
const longColumns = {
  chunk: 'chunkMs',
  'ITL p99 during': 'p99_itl_during_ms',
  'ITL max': 'max_itl_ms',
  'long TTFT': 'longTtftMs',
};

const median = (values) => summarize(values, []).median;
const shown = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

function printTable(measure, rounds) {
  const all = measure === 'long-prompt' ? { ...columns, ...longColumns } : columns;
  const names = Object.keys(rounds);
  console.log(
    `\n${measure} (ms)  ${names.length > 1 ? `medians of ${rounds[names[0]].length} rounds, spread` : ''}`,
  );
  for (const [title, field] of Object.entries(all)) {
    const cells = names.map((name) => {
      const values = rounds[name].map((figure) => figure[field]);
      const own = median(values);
      const ratio =
        name === names[0] ? '' : ` ×${(own / median(rounds[names[0]].map((f) => f[field]))).toFixed(2)}`;
      return `${name} ${shown(own)} (${shown(Math.min(...values))}–${shown(Math.max(...values))})${ratio}`.padEnd(
        40,
      );
    });
    console.log(`  ${title.padEnd(15)}${cells.join(' ')}`);
  }
}

/** 16-bit arithmetic of different engines parts ways at near-ties; the first letters of most answers must agree. */
function agreement(rounds) {
  const [reference, ...others] = Object.entries(rounds);
  for (const [name, figuresOfRounds] of others) {
    const pairs = figuresOfRounds.flatMap(({ texts }, round) =>
      texts.map((text, i) => text.slice(0, 3) === reference[1][round].texts[i].slice(0, 3)),
    );
    const share = pairs.filter(Boolean).length / pairs.length;
    console.log(`  ${name}: ${Math.round(share * 100)} % of answers begin as ${reference[0]}'s`);
    if (share < 0.75) process.exitCode = 1;
  }
}

const logs = mkdtempSync(join(tmpdir(), 'compare-serving-'));
const running = new Map();

/** The server as the measure needs it; started anew where its slots differ. */
async function serverFor(name, { slots, tokensPerSlot }) {
  const key = name === 'llama-native' ? `${slots}` : '';
  const current = running.get(name);
  if (current?.key === key) return current.server;
  await current?.server.stop();
  const server = await startServer(name, { ...options, slots, tokensPerSlot }, join(logs, `${name}.log`));
  running.set(name, { key, server });
  console.log(`${name}: ready after ${server.readySeconds.toFixed(1)} s`);
  await loadWith(server, streams(2, 99));
  return server;
}

const names = options.servers.split(',').filter((name) => {
  const { needs } = describeServer(name, { ...options, slots: 1, tokensPerSlot: 1 });
  if (!existsSync(needs))
    console.error(`${name}: ${needs} is not there, left out; bench/prepare.sh makes it`);
  return existsSync(needs);
});

process.on('SIGTERM', () => process.exit(143)).on('SIGINT', () => process.exit(130));
const results = {};
try {
  for (const measure of options.only?.split(',') ?? Object.keys(measures)) {
    const rounds = Object.fromEntries(names.map((name) => [name, []]));
    for (const name of names) await serverFor(name, measures[measure]);
    for (let round = 0; round < Number(options.rounds); round++) {
      for (const name of names) {
        const server = await serverFor(name, measures[measure]);
        await sleep(settleMs);
        rounds[name].push(await measures[measure].run(server, round));
      }
    }
    results[measure] = rounds;
    printTable(measure, rounds);
    agreement(rounds);
    if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, null, 1)}\n`);
  }
} finally {
  for (const { server } of running.values()) await server.stop();
}
