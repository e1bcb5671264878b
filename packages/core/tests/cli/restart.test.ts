/** `tenon serve --restart-on-device-loss`, with the engine in its own thread. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { type Run, serve } from './tenon-process.js';

const lossMessage =
  'device null:0 is lost: the device fell off the bus; the engine restarts: send the request again';
let folder: string;
let running: Run[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tenon-restart-'));
  running = [];
});
afterEach(() => {
  for (const { process: child } of running) child.kill('SIGKILL');
  rmSync(folder, { recursive: true });
});

async function start(
  env: Record<string, string>,
  args: readonly string[] = [],
): Promise<Run & { url: string }> {
  const options = ['--restart-on-device-loss', '--max-num-seqs', '1', '--step-timeout', '0.3', ...args];
  const losses = join(folder, 'losses');
  const run = await serve(options, { NULL_STEP_MS: '5', NULL_LOSSES: losses, NULL_FAULT_COUNT: '1', ...env });
  running.push(run);
  return run;
}

/** CPU time of a process and its threads, in hundredths of a second. */
function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

const complete = (url: string, fields: object = {}): Promise<Response> =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'Once', max_tokens: 20, ignore_eos: true, ...fields }),
  });
const healthOf = async (url: string): Promise<number> => (await fetch(`${url}/health`)).status;
const metric = async (url: string, name: string): Promise<number> =>
  Number(
    new RegExp(`^tenon:${name}\\{[^}]*\\} (\\S+)$`, 'm').exec(
      await (await fetch(`${url}/metrics`)).text(),
    )?.[1],
  );

describe('a lost device', () => {
  it.each([
    ['lose', lossMessage],
    ['hang', 'a step has not ended within 0.3 s'],
    ['crash', 'the engine thread died: driver bug'],
    ['block', 'a step has not ended within 0.3 s'],
  ])(
    'fails the stream that runs, answers what waits, and is replaced (%s)',
    async (fault, message) => {
      const pipe = join(folder, 'pipe');
      execFileSync('mkfifo', [pipe]);
      const run = await start({ NULL_FAULT: fault, NULL_PIPE: pipe });
      const stream = complete(run.url, { stream: true });
      const waiting = [1, 2, 3].map(() => complete(run.url));
      const text = await (await stream).text();
      expect(text).toContain('"text":');
      expect(text).toMatch(/data: \{"error":.*"tenon_code":"[^"]+"\}\}\n\ndata: \[DONE\]\n\n$/);
      expect(text).toContain(message);
      const answers = await Promise.all(waiting);
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
      expect(await healthOf(run.url)).toBe(200);
      expect(await metric(run.url, 'engine_restarts_total')).toBe(1);
      expect(run.stderr()).toMatch(/the engine restarts, 3 requests wait for it: .*/);
      expect(run.stderr()).toMatch(/the engine is back on null:0 after \d/);

      run.process.kill('SIGTERM');
      const { status } = await run.ended;
      expect(status).toBe(fault === 'block' ? null : 0);
      expect(run.stderr().includes('ends by SIGKILL')).toBe(fault === 'block');
    },
    20_000,
  );

  it('turns /health red until the engine is back; requests come and go meanwhile', async () => {
    const { url } = await start({ NULL_FAULT: 'lose', NULL_REOPEN_MS: '700' }, [
      '--max-num-waiting-requests',
      '2',
    ]);
    expect((await complete(url)).status).toBe(500);
    const health = await fetch(`${url}/health`);
    expect(health.status).toBe(503);
    expect(await health.json()).toMatchObject({
      error: { tenon_code: 'backend.device-lost', message: `the engine is restarting: ${lossMessage}` },
    });
    const leaver = new AbortController();
    const left = fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'Once' }),
      signal: leaver.signal,
    });
    const waiting = complete(url);
    await expect.poll(() => metric(url, 'num_requests_waiting'), { interval: 10 }).toBe(2);
    expect((await complete(url)).status).toBe(429);
    leaver.abort();
    await expect(left).rejects.toThrow('aborted');
    await expect.poll(() => metric(url, 'num_requests_waiting'), { interval: 10 }).toBe(1);
    expect(await healthOf(url)).toBe(503);
    expect((await waiting).status).toBe(200);
    expect(await healthOf(url)).toBe(200);
  });

  it.each([[[]], [['--shutdown-timeout', '1']]])(
    'does not keep a server that is stopped (%j)',
    async (args) => {
      const run = await start({ NULL_FAULT: 'lose', NULL_REOPEN_MS: '600000' }, args);
      const answers = [complete(run.url), complete(run.url)];
      expect((await answers[0]!).status).toBe(500);
      const startMs = performance.now();
      run.process.kill('SIGTERM');
      expect((await answers[1]!).status).toBe(503);
      expect((await run.ended).status).toBe(0);
      expect(performance.now() - startMs).toBeLessThan(4000);
    },
  );

  it('leaves no thread or file behind, and no CPU used, over ten restarts', async () => {
    const run = await start({ NULL_FAULT: 'lose', NULL_FAULT_COUNT: '10' });
    const { pid } = run.process;
    const numThreads = (): number => readdirSync(`/proc/${pid}/task`).length;
    const numFiles = (): number => readdirSync(`/proc/${pid}/fd`).length;
    const before = [numThreads(), numFiles()];
    const statuses: number[] = [];
    while (statuses.at(-1) !== 200) statuses.push((await complete(run.url)).status);
    expect(statuses).toEqual([...Array(10).fill(500), 200]);
    await expect.poll(() => numThreads() - before[0]!).toBeLessThanOrEqual(0);
    expect(numFiles()).toBeLessThanOrEqual(before[1]! + 2);
    const startTicks = cpuTicks(pid!);
    await sleep(500);
    expect(cpuTicks(pid!) - startTicks).toBeLessThanOrEqual(2);
  }, 20_000);
});
