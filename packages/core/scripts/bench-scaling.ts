/**
 * Whether the cost of a token depends on how many requests there are, or on how many blocks the prefix cache holds: writes
 * docs/scaling.md and its plots. Scheduler, KV-cache manager, step writer and output encoder run as they do in serving;
 * the backend computes nothing. `npx tsx packages/core/scripts/bench-scaling.ts [--print]` (`--print`: write no files)
 */
import { writeFileSync } from 'node:fs';
import { BlockTable } from '../src/kv-cache/block-table.js';
import { KvCacheManager } from '../src/kv-cache/kv-cache-manager.js';
import { DrivenCore } from './driven-core.js';
import { linePlot, shortNumber, type Series } from './line-plot.js';

const requestCounts = [16, 64, 256, 1024, 4096];
const blockCounts = [2 ** 10, 2 ** 12, 2 ** 14, 2 ** 16, 2 ** 18, 2 ** 20];
const numRounds = 5;
const tokensPerRound = 40_000;
const blockSize = 16;

/** Of several rounds, the one that was disturbed least. */
const best = (values: readonly number[]): number => Math.min(...values);

/** Nanoseconds per unit; `work` returns how many units it did. */
function timed(work: () => number): number {
  const start = performance.now();
  const count = work();
  return ((performance.now() - start) * 1e6) / count;
}

const rounds = (work: () => number): number => best(Array.from({ length: numRounds }, () => timed(work)));

/** Steps until `tokensPerRound` tokens have been sampled; returns their number. */
function decodeRound(core: DrivenCore): number {
  let numTokens = 0;
  while (numTokens < tokensPerRound) {
    numTokens += core.numLogitRows;
    core.step();
  }
  return numTokens;
}

async function runningCore(numRunning: number, numWaiting: number): Promise<DrivenCore> {
  const numRoundSteps = Math.ceil(tokensPerRound / numRunning);
  const maxTokens = Math.min(3900, (numRounds + 2) * numRoundSteps + 100);
  const core = new DrivenCore({
    maxNumSeqs: numRunning,
    numBlocks: (numRunning + 1) * Math.ceil((maxTokens + 80) / blockSize),
  });
  for (let i = 0; i < numRunning + numWaiting; i++)
    core.add({ numPromptTokens: 64, maxTokens: i < numRunning ? maxTokens : 16, family: i });
  await core.start();
  while (core.numLogitRows < numRunning) core.step();
  return core;
}

/** Nanoseconds per token while `numRunning` sequences decode. */
async function decodeCost(numRunning: number, numWaiting: number): Promise<number> {
  const costs: number[] = [];
  // A sequence has room for 3900 tokens, which few sequences use up fast: each gets a core per round.
  for (let i = 0; i < numRounds; i++) {
    const core = await runningCore(numRunning, numWaiting);
    costs.push(timed(() => decodeRound(core)));
  }
  return best(costs);
}

/** Nanoseconds per token, prompts included, while requests end and others come in their place. */
async function churnCost(numLive: number): Promise<number> {
  const core = new DrivenCore({ maxNumSeqs: numLive, numBlocks: 12 * numLive });
  let numAdded = 0;
  /** Adds requests; returns the tokens they will have. */
  const refill = (count: number): number => {
    let numTokens = 0;
    for (let i = 0; i < count; i++, numAdded++) {
      const maxTokens = 32 + (numAdded % 64);
      core.add({ numPromptTokens: 64, maxTokens, family: numAdded });
      numTokens += 64 + maxTokens;
    }
    return numTokens;
  };
  const round = (): number => {
    let numTokens = 0;
    while (numTokens < 4 * tokensPerRound) {
      core.step();
      numTokens += refill(numLive - core.numLive);
    }
    return numTokens;
  };
  refill(numLive);
  await core.start();
  round();
  return rounds(round);
}

/** Nanoseconds per output token where there are blocks for less than a third of what runs: all are preempted, and computed again. */
async function preemptionCost(numRunning: number): Promise<number> {
  const run = async (): Promise<number> => {
    const core = new DrivenCore({ maxNumSeqs: numRunning, numBlocks: 7 * numRunning });
    for (let i = 0; i < numRunning; i++) core.add({ numPromptTokens: 64, maxTokens: 300, family: i });
    await core.start();
    const cost = timed(() => {
      while (core.isBusy) core.step();
      return 300 * numRunning;
    });
    if (core.stats.numPreemptionsTotal < numRunning / 2) throw new Error('nothing was preempted');
    return cost;
  };
  const costs: number[] = [];
  for (let i = 0; i < Math.max(1, Math.min(numRounds, 4096 / numRunning)); i++) costs.push(await run());
  return best(costs);
}

/** Nanoseconds to abort one of `numWaiting` waiting requests, in any order. */
async function abortCost(numWaiting: number): Promise<number> {
  const core = await runningCore(64, 0);
  const costs: number[] = [];
  for (let done = 0; done < 4 * 4096; done += numWaiting) {
    const ids = Array.from({ length: numWaiting }, (_, i) =>
      core.add({ numPromptTokens: 64, maxTokens: 16, family: i }),
    );
    const order = ids.map((_, i) => ids[(i * 797) % numWaiting]!);
    costs.push(
      timed(() => {
        for (const id of order) core.end(id);
        return numWaiting;
      }),
    );
  }
  return best(costs);
}

const promptBlocks = 64;
const promptTokens = promptBlocks * blockSize + 1;
const promptsPerRound = 200;

/** Prompts of one family are the same. */
const promptOf = (family: number): Int32Array =>
  Int32Array.from(
    { length: promptTokens },
    (_, i) => (Math.imul(i + 1, 31) + Math.imul(family, 7919)) & 0xfff_ffff,
  );

/** What admitting and ending a prompt does, without its steps. */
function passThrough(kv: KvCacheManager, tokenIds: Int32Array): number {
  const table = new BlockTable('');
  const numCached = kv.countCachedBlocks(table, tokenIds, tokenIds.length);
  if (!kv.tryAdmit(table, numCached, tokenIds.length, false)) throw new Error('the prompt does not fit');
  kv.cacheFullBlocks(table, tokenIds, tokenIds.length);
  kv.free(table);
  return numCached;
}

interface CacheCosts {
  /** Nanoseconds per token of a prompt that is found, and of one that replaces another. */
  readonly hit: number;
  readonly miss: number;
  /** Milliseconds of the slowest prompt of a round. */
  readonly slowestMs: number;
}

function cacheCosts(numBlocks: number): CacheCosts {
  const kv = new KvCacheManager({ numBlocks, blockSize, watermarkBlocks: 0 });
  const numFamilies = Math.floor(numBlocks / (promptBlocks + 1));
  for (let family = 0; family < numFamilies; family++) passThrough(kv, promptOf(family));
  const slowest: number[] = [];
  const pass = (prompts: readonly Int32Array[], numExpected: number): number => {
    const times = prompts.map((prompt) => {
      const start = performance.now();
      const numCached = passThrough(kv, prompt);
      const ms = performance.now() - start;
      if (numCached !== numExpected) throw new Error(`${numCached} blocks found, expected ${numExpected}`);
      return ms;
    });
    slowest.push(Math.max(...times));
    return (times.reduce((sum, ms) => sum + ms, 0) * 1e6) / (times.length * promptTokens);
  };
  const known = (round: number, i: number): number => ((round * promptsPerRound + i) * 7919) % numFamilies;
  const unknown = (round: number, i: number): number => 1_000_000 + round * promptsPerRound + i;
  const passes = (family: (round: number, i: number) => number, numExpected: number): number =>
    best(
      Array.from({ length: numRounds }, (_, round) => {
        const prompts = Array.from({ length: promptsPerRound }, (_, i) => promptOf(family(round, i)));
        return pass(prompts, numExpected);
      }),
    );
  return { hit: passes(known, promptBlocks), miss: passes(unknown, 0), slowestMs: best(slowest) };
}

/** The JIT compiler sees every path before anything is timed. */
async function warmUp(): Promise<void> {
  await decodeCost(16, 64);
  await decodeCost(64, 64);
  await decodeCost(1024, 0);
  await churnCost(64);
  await preemptionCost(256);
  await abortCost(256);
  cacheCosts(2 ** 12);
}

interface Column {
  readonly name: string;
  readonly values: readonly number[];
}

async function columnOf(name: string, cost: (count: number) => Promise<number>): Promise<Column> {
  const values: number[] = [];
  for (const count of requestCounts) values.push(await cost(count));
  return { name, values };
}

function table(head: string, counts: readonly number[], columns: readonly Column[]): string {
  const rows = counts.map((count, i) => [
    shortNumber(count),
    ...columns.map(({ values }) => digits(values[i]!)),
  ]);
  const lines = [[head, ...columns.map(({ name }) => name)], ['---:', ...columns.map(() => '---:')], ...rows];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

const digits = (value: number): string => (value < 10 ? value.toFixed(2) : value.toFixed(0));

const seriesOf = (counts: readonly number[], { name, values }: Column): Series => ({
  name,
  points: values.map((value, i) => [counts[i]!, value]),
});

await warmUp();
const requestColumns = [
  await columnOf('decode', (count) => decodeCost(count, 0)),
  await columnOf('decode of 64, the others waiting', (count) => decodeCost(64, count)),
  await columnOf('requests come and end', churnCost),
  await columnOf('decode under preemption', preemptionCost),
  await columnOf('abort a waiting request (ns each)', abortCost),
];
const costs = blockCounts.map(cacheCosts);
const blockColumns = [
  { name: 'found in the cache', values: costs.map(({ hit }) => hit) },
  { name: 'not found, replaces another', values: costs.map(({ miss }) => miss) },
];
const slowest = { name: 'slowest prompt (ms)', values: costs.map(({ slowestMs }) => slowestMs) };

const requestTable = table('requests', requestCounts, requestColumns);
const blockTable = table('cached blocks', blockCounts, [...blockColumns, slowest]);
console.log(`${requestTable}\n\n${blockTable}`);

const page = `# Scaling

What JavaScript does for a token must not depend on how many requests there are or how much is cached. Written by
\`npx tsx packages/core/scripts/bench-scaling.ts\`, on a 2-core Zen 4 machine: scheduler, KV-cache manager, step writer and
output encoder as they run in serving, on a backend that computes nothing. Nanoseconds per token, the best of five
rounds.

## Requests

${requestTable}

![cost per token by number of requests](scaling-requests.svg)

Running requests are visited once a step, and each visit costs the same; few of them share the fixed part of a step. Waiting ones are
in a heap that is looked at from its top. From about a thousand on, requests no longer fit into the core's second-level cache.

## Cached blocks

Prompts of ${promptTokens} tokens, in blocks of ${blockSize}: hashed, looked up, given blocks, offered to the cache, and freed.

${blockTable}

![cost per token by number of cached blocks](scaling-blocks.svg)

Most of it is the SHA-256 of each block. The rest is a few places in memory per block, which for a million blocks come from DRAM instead of
a cache. The table of digests has a fixed size and lives in typed arrays, so it neither grows nor occupies the garbage collector.
`;

if (!process.argv.includes('--print')) {
  const docs = new URL('../../../docs/', import.meta.url);
  const write = (name: string, content: string): void => writeFileSync(new URL(name, docs), content);
  write('scaling.md', page);
  write(
    'scaling-requests.svg',
    linePlot({
      title: 'Cost per token by number of requests',
      xLabel: 'requests',
      yLabel: 'ns per token',
      logX: true,
      series: requestColumns.slice(0, 4).map((column) => seriesOf(requestCounts, column)),
    }),
  );
  write(
    'scaling-blocks.svg',
    linePlot({
      title: 'Cost per prompt token by number of cached blocks',
      xLabel: 'cached blocks',
      yLabel: 'ns per token',
      logX: true,
      series: blockColumns.map((column) => seriesOf(blockCounts, column)),
    }),
  );
}
