#!/usr/bin/env node
/**
 * What users and networks do to a server, and whether it minds: after each scenario all KV blocks are back, /health was right
 * all along (asked every 100 ms), nothing of level error was logged, memory and open files are where they were; at the end
 * the server is idle and uses no CPU. Ends with status 1 where something does not hold.
 * Usage: node bench/abuse/run.mjs [--scale 0.02] [--device null|cpu] [--idle-seconds 30] [scenario …]; needs `npm run build`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import {
  cancels,
  halfOpen,
  malformed,
  manyConnections,
  pipelining,
  slowBodies,
  slowReaders,
} from './scenarios.mjs';
import { HealthPoller, startServer, untilIdle } from './server.mjs';
import { signals } from './signals.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    scale: { type: 'string', default: '1' },
    device: { type: 'string', default: 'null' },
    'idle-seconds': { type: 'string', default: '30' },
  },
});
const scale = Number(values.scale);
const clientTimeoutMs = 2000;
const mostMemoryGrowthMib = 200;
/** 0.0 % when rounded; in a short time, what Node's own timers may take. */
const mostIdlePercent = 0.05;
const mostIdleMs = 5;
const mostIdleTries = 4;

const failures = [];

/** Scenarios that share a server. */
const groups = [
  {
    name: 'few blocks, so that requests preempt each other all the time',
    args: ['--max-num-seqs', '32', '--max-model-len', '512', '--num-gpu-blocks-override', '40', '--block-size', '16', '--watermark', '0'],
    scenarios: { cancels, idle },
  },
  {
    name: 'blocks for all',
    stepMs: 5,
    args: ['--max-num-seqs', '256', '--max-model-len', '1024', '--kv-cache-memory-bytes', '1G'],
    scenarios: { halfOpen, slowBodies, slowReaders, manyConnections, malformed, pipelining, idle },
  },
  { name: 'signals, a server for each', scenarios: { signals } },
]; // prettier-ignore

async function runGroup({ name, args, stepMs = 1, scenarios }) {
  const chosen = Object.entries(scenarios).filter(
    ([scenario]) => positionals.length === 0 || positionals.includes(scenario),
  );
  if (chosen.length === 0) return;
  console.log(`\n== ${name}`);
  if (args === undefined) {
    for (const [scenario, run] of chosen) report(scenario, await run({ scale }));
    return;
  }
  const timeout = ['--client-timeout', String(clientTimeoutMs / 1000)];
  const server = await startServer({
    device: values.device,
    args: [...args, ...timeout],
    environment: { NULL_STEP_MS: String(stepMs) },
  });
  await manyConnections({ server, scale: 0.1 });
  await sleep(300);
  const start = {
    numFiles: server.numFiles,
    memoryMib: server.memoryMib,
    numBlocks: await server.numBlocks(),
  };
  console.log(
    `start: ${start.memoryMib.toFixed(0)} MiB, ${start.numFiles} open files, ${start.numBlocks} blocks`,
  );
  for (const [scenario, run] of chosen) report(scenario, await underWatch(server, start, run));
  const growthMib = server.memoryMib - start.memoryMib;
  console.log(`\nmemory: ${growthMib.toFixed(0)} MiB more than at the start`);
  if (growthMib > mostMemoryGrowthMib) failures.push(`memory grew by ${growthMib.toFixed(0)} MiB`);
  const { status } = await server.stop();
  if (status !== 0) failures.push(`the server ended with status ${status}`);
}

/** A scenario's figures, and with them what the server was like meanwhile and is like afterwards. */
async function underWatch(server, start, run) {
  const health = run === idle ? undefined : new HealthPoller(server.port);
  const { figures, wrong, others } = await run({ server, scale, clientTimeoutMs });
  wrong.push(...(await leftovers(server, start)));
  await health?.stop();
  if (others !== undefined) {
    figures['others: answered'] = others.numWhole;
    figures['others: longest silence (ms)'] = others.longestGapMs.toFixed(0);
    if (others.numFailed > 0) wrong.push(`${others.numFailed} requests of others were not answered`);
  }
  if (health !== undefined) {
    figures['/health'] =
      `right ${health.numAsked - health.numWrong} of ${health.numAsked}, slowest ${health.slowestMs.toFixed(0)} ms`;
    if (health.numWrong > 0) wrong.push(`/health was wrong ${health.numWrong} times`);
  }
  figures['memory, open files'] = `${server.memoryMib.toFixed(0)} MiB, ${server.numFiles}`;
  return { figures, wrong };
}

/** What a scenario has left behind. */
async function leftovers(server, start) {
  const wrong = [];
  const { running, waiting, free, used } = await untilIdle(server);
  if (running + waiting + used !== 0 || free + used !== start.numBlocks)
    wrong.push(`${running} run, ${waiting} wait, ${free} free and ${used} used blocks of ${start.numBlocks}`);
  // The health poller's own connection may be open.
  const mostFiles = start.numFiles + 2;
  const deadline = performance.now() + 5000;
  while (server.numFiles > mostFiles && performance.now() < deadline) await sleep(50);
  if (server.numFiles > mostFiles)
    wrong.push(`${server.numFiles} open files, ${start.numFiles} at the start`);
  if (server.errors.length > 0) wrong.push(`the log has errors: ${server.errors[0]}`);
  return wrong;
}

/**
 * CPU time without requests. After a load, V8 collects garbage once or twice within half a minute, which is why there is a
 * second try and a third.
 */
async function idle({ server }) {
  const seconds = Number(values['idle-seconds']);
  const tries = [];
  do {
    await sleep(1000);
    const before = server.cpuMs;
    await sleep(seconds * 1000);
    tries.push(server.cpuMs - before);
  } while (!isIdle(tries.at(-1), seconds) && tries.length < mostIdleTries);
  const percent = (ms) => (ms / seconds / 10).toFixed(2);
  return {
    figures: { [`CPU in ${seconds} s (%)`]: tries.map(percent).join(', then ') },
    wrong: isIdle(tries.at(-1), seconds) ? [] : [`${percent(tries.at(-1))} % CPU in ${seconds} s without a request`],
  }; // prettier-ignore
}

const isIdle = (ms, seconds) => ms < Math.max(mostIdleMs, seconds * 10 * mostIdlePercent);

function report(name, { figures, wrong }) {
  console.log(`\n${name}`);
  for (const [key, value] of Object.entries(figures)) console.log(`  ${key.padEnd(30)} ${value}`);
  for (const what of wrong) console.log(`  WRONG: ${what}`);
  failures.push(...wrong.map((what) => `${name}: ${what}`));
}

for (const group of groups) await runGroup(group);
console.log(
  failures.length === 0 ? '\nall held' : `\n${failures.length} did not hold:\n  ${failures.join('\n  ')}`,
);
process.exitCode = failures.length === 0 ? 0 : 1;
