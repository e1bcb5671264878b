/** `tenon bench startup [model]`: a fresh server, from process start to its first token; its memory, and its CPU while idle. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { Command } from 'commander';

import { processUsage } from '../benchmark/process-usage.js';
import { summarize } from '../benchmark/statistics.js';
import { TenonError } from '../errors.js';
import { countOption, jsonFileOption, numberOption } from './bench-options.js';
import { printFigures, saveJson, showProgress } from './bench-report.js';

interface StartupOptions {
  readonly model: string | undefined;
  readonly numIters: number;
  readonly idleTime: number;
  readonly timeout: number;
  readonly outputJson: string | undefined;
}

interface Startup {
  /** From process start; seconds. */
  readonly readySeconds: number;
  readonly firstTokenSeconds: number;
  /** Resident, weights and KV cache. */
  readonly residentMib: number;
  readonly weightsMib: number;
  readonly kvMib: number;
  readonly idleCpuPercent: number;
}

export function benchStartupCommand(): Command {
  const command = new Command('startup')
    .usage('[model] [options] [-- options of serve]')
    .description('Start a server again and again: time to the first token, memory, CPU while idle.')
    .argument('[model]', 'folder, GGUF file or hub id; by default the embedded model')
    .argument('[serve options...]', 'after --: options of tenon serve')
    .option('--model <model>', 'the model, as an option')
    .addOption(countOption('num-iters', 'starts', 3))
    .addOption(numberOption('idle-time', 'seconds to watch it idle, each time', 5, 0))
    .addOption(numberOption('timeout', 'seconds until a start counts as failed', 600, 1))
    .addOption(jsonFileOption());
  return command.action(async (model: string | undefined, serveOptions: string[]) => {
    const options = command.opts<StartupOptions>();
    const chosen = model ?? options.model;
    const args = [...(chosen === undefined ? [] : [chosen]), ...serveOptions];
    const startups: Startup[] = [];
    for (let i = 0; i < options.numIters; i++) {
      showProgress(`start ${i + 1} of ${options.numIters}`);
      startups.push(await measureStart(args, options));
    }
    showProgress(undefined);
    report(chosen ?? 'the embedded model', startups, options.outputJson);
  });
}

async function measureStart(
  args: readonly string[],
  { idleTime, timeout }: StartupOptions,
): Promise<Startup> {
  const url = `http://127.0.0.1:${await freePort()}`;
  const startMs = performance.now();
  const server = startServer([...args, '--host', '127.0.0.1', '--port', new URL(url).port]);
  try {
    await untilHealthy(server, url, startMs + timeout * 1000);
    const readySeconds = (performance.now() - startMs) / 1000;
    await firstToken(url);
    const firstTokenSeconds = (performance.now() - startMs) / 1000;
    const idleCpuPercent = await measureIdle(server.process.pid!, idleTime);
    const residentMib = processUsage(server.process.pid!).residentBytes / 2 ** 20;
    const { weightsMib, kvMib } = reportedSizes(server.printed());
    return { readySeconds, firstTokenSeconds, residentMib, weightsMib, kvMib, idleCpuPercent };
  } finally {
    await stop(server.process);
  }
}

interface Server {
  readonly process: ChildProcess;
  printed(): string;
}

function startServer(args: readonly string[]): Server {
  const tenon = process.argv[1]!;
  // A key would be asked for.
  const { TENON_API_KEY: _key, ...env } = process.env;
  const child = spawn(process.execPath, [tenon, 'serve', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  });
  let printed = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text: Buffer) => (printed += String(text)));
  return { process: child, printed: () => printed };
}

async function untilHealthy(server: Server, url: string, deadlineMs: number): Promise<void> {
  for (;;) {
    const isHealthy = await fetch(`${url}/health`).then(({ ok }) => ok, () => false); // prettier-ignore
    if (isHealthy) return;
    if (server.process.exitCode !== null) throw failed(`the server ended: ${server.printed().trim()}`);
    if (performance.now() > deadlineMs) throw failed('the server did not get ready in time; see --timeout');
    await sleep(5);
  }
}

async function firstToken(url: string): Promise<void> {
  const body = JSON.stringify({
    prompt: [40, 41, 42],
    max_tokens: 1,
    ignore_eos: true,
    return_token_ids: true,
  });
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body });
  const answer = await response.text();
  const { choices } = (response.ok ? JSON.parse(answer) : {}) as { choices?: { token_ids?: number[] }[] };
  if (choices?.[0]?.token_ids?.length !== 1)
    throw failed(`the first request got no token: ${answer.slice(0, 300)}`);
}

/** Percent of one core. Watches once nothing from the start is left to do. */
async function measureIdle(pid: number, seconds: number): Promise<number> {
  if (seconds === 0) return 0;
  for (let before = NaN, now = processUsage(pid).cpuMs; before !== now; now = processUsage(pid).cpuMs) {
    before = now;
    await sleep(500);
  }
  const before = processUsage(pid).cpuMs;
  await sleep(seconds * 1000);
  return (processUsage(pid).cpuMs - before) / (seconds * 10);
}

/** As the server says when it is ready. */
function reportedSizes(printed: string): { weightsMib: number; kvMib: number } {
  return {
    weightsMib: mebibytes(/^model .* ([\d.]+) (MiB|GiB)$/m.exec(printed)),
    kvMib: mebibytes(/^KV cache .* ([\d.]+) (MiB|GiB)$/m.exec(printed)),
  };
}

function mebibytes(match: RegExpExecArray | null): number {
  const [, value = '0', unit] = match ?? [];
  return Number(value) * (unit === 'GiB' ? 1024 : 1);
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function report(name: string, startups: readonly Startup[], file: string | undefined): void {
  const median = (pick: (startup: Startup) => number): number => summarize(startups.map(pick), []).median;
  const resident = median(({ residentMib }) => residentMib);
  const weights = median(({ weightsMib }) => weightsMib);
  const kv = median(({ kvMib }) => kvMib);
  printFigures(`${name}, medians of ${startups.length} starts`, [
    ['process start to healthy (s)', median(({ readySeconds }) => readySeconds)],
    ['process start to first token (s)', median(({ firstTokenSeconds }) => firstTokenSeconds)],
    ['resident memory (MiB)', resident],
    ['  of these, weights', weights],
    ['  KV cache', kv],
    ['  all else', resident - weights - kv],
    ['CPU while idle (%)', median(({ idleCpuPercent }) => idleCpuPercent)],
  ]);
  saveJson(file, {
    startup_times: startups.map(({ readySeconds }) => readySeconds),
    first_token_times: startups.map(({ firstTokenSeconds }) => firstTokenSeconds),
    resident_mib: startups.map(({ residentMib }) => residentMib),
    weights_mib: weights,
    kv_cache_mib: kv,
    idle_cpu_percent: startups.map(({ idleCpuPercent }) => idleCpuPercent),
  });
}

function failed(problem: string): TenonError {
  return new TenonError('request.benchmark-failed', problem);
}
