import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNullBackend } from '../src/conformance/null-backend.js';
import { LLM } from '../src/llm.js';

const stories = join(import.meta.dirname, '../../model-stories/model');
const conformance = pathToFileURL(join(import.meta.dirname, '../dist/conformance/index.js')).href;

/** An application with null backends as dependencies: a good one, and one whose third step crashes the thread. */
let app: string;
beforeAll(() => {
  app = mkdtempSync(join(tmpdir(), 'tenon-app-'));
  writeFileSync(
    join(app, 'package.json'),
    JSON.stringify({ dependencies: { 'good-backend': '1', 'crashing-backend': '1' } }),
  );
  const crash = `(stepId) => { if (stepId === 3) setImmediate(() => { throw new Error('driver bug'); }); return undefined; }`;
  addBackend('good', '{ id: "good", neverSample: [0, 1, 2] }');
  addBackend('crashing', `{ id: 'crashing', stepMs: 5, neverSample: [0, 1, 2], inject: ${crash} }`);
});
afterAll(() => rmSync(app, { recursive: true }));

function addBackend(id: string, options: string): void {
  const folder = join(app, `node_modules/${id}-backend`);
  mkdirSync(folder, { recursive: true });
  const manifest = {
    name: `${id}-backend`,
    version: '1.0.0',
    type: 'module',
    tenon: { backend: { id, entry: './index.js', api: '^1.0' } },
    peerDependencies: { '@tenon/core': '<2' },
  };
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
  writeFileSync(
    join(folder, 'index.js'),
    `import { createNullBackend } from ${JSON.stringify(conformance)};\nexport default createNullBackend(${options});\n`,
  );
}

/** CPU milliseconds of this process, all its threads together. */
function ownCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** CPU milliseconds of the threads of this process that are not among `others` (Linux). */
function cpuMsBesides(others: ReadonlySet<string>): number {
  const threads = readdirSync('/proc/self/task').filter((thread) => !others.has(thread));
  expect(threads.length).toBeGreaterThan(0);
  const nanoseconds = threads.map((thread) =>
    Number(readFileSync(`/proc/self/task/${thread}/schedstat`, 'utf8').split(' ')[0]),
  );
  return nanoseconds.reduce((sum, value) => sum + value) / 1e6;
}

const load = (device: string) => LLM.load(stories, { device }, { root: app });

describe('the engine thread', () => {
  it('answers as the core in this thread does', async () => {
    const request = ['Once upon a time', { maxTokens: 40, seed: 7, n: 2, logprobs: 1 }] as const;
    await using threaded = await load('good');
    await using direct = await LLM.load(
      stories,
      {},
      { backend: createNullBackend({ neverSample: [0, 1, 2] }) },
    );
    const [fromThread] = await threaded.generate(...request);
    const [fromHere] = await direct.generate(...request);
    expect(fromThread!.outputs).toEqual(fromHere!.outputs);
    expect(fromThread!.metrics.scheduledMs).toBeGreaterThanOrEqual(fromThread!.metrics.arrivalMs);
    expect(fromThread!.metrics.firstTokenMs).toBeGreaterThanOrEqual(fromThread!.metrics.scheduledMs);
  });

  it('uses no CPU while it has nothing to do', async () => {
    const others = new Set(readdirSync('/proc/self/task'));
    await using llm = await load('good');
    await llm.generate(['a', 'b', 'c'], { maxTokens: 50 });
    await sleep(200);
    const before = { engine: cpuMsBesides(others), process: ownCpuMs() };
    await sleep(1000);
    expect(cpuMsBesides(others) - before.engine).toBeLessThan(20);
    // This thread also runs the tests, which may have something to do in a second or two; what polls has in each.
    let least = ownCpuMs() - before.process;
    for (let i = 0; i < 4 && least >= 20; i++) {
      const start = ownCpuMs();
      await sleep(1000);
      least = Math.min(least, ownCpuMs() - start);
    }
    expect(least).toBeLessThan(20);
  });

  it('fails every request and turns red when it crashes', async () => {
    const llm = await load('crashing');
    const results = await Promise.allSettled(
      [1, 2, 3].map((seed) => llm.generate('Once', { maxTokens: 400, seed })),
    );
    for (const result of results) {
      expect(result).toMatchObject({
        status: 'rejected',
        reason: { code: 'internal.engine-died', message: expect.stringMatching(/driver bug/) },
      });
    }
    expect(llm.engine.health().ok).toBe(false);
    await expect(llm.generate('Once')).rejects.toMatchObject({ code: 'internal.engine-died' });
    await llm.close();
  });

  it('reports why it cannot start', async () => {
    await expect(load('quantum')).rejects.toMatchObject({
      code: 'config.device-not-found',
      message: expect.stringMatching(/^no backend 'quantum'; found: good \(good-backend 1\.0\.0\), crashing/),
    });
  });
});
