/** The addon from TypeScript: steps, their failures, lifetimes, threads and processes. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { weightSchemeNames, type WeightScheme } from '../../core/src/backend/index.js';
import { errorCodes } from '../../core/src/errors.js';
import module from '../src/index.js';
// @ts-expect-error: plain JavaScript, since child processes and workers run it too
import { openTiny, rowsOf, tinyPlan, tinyResult, tinyStep, writeTable } from './fixtures/tiny-plan.mjs';
import { nativeTest } from './native-test.js';

const folder = mkdtempSync(join(tmpdir(), 'tenon-addon-'));
afterAll(() => rmSync(folder, { recursive: true }));
const table = join(folder, 'table');
const backend = module.create({ log() {} });
const row = (token: number): number[] => [0, 1, 2, 3].map((i) => token * 10 + i);

it('passes the native tests of the SDK and the runtime', () => {
  expect(execFileSync(nativeTest('sdk_test'), { encoding: 'utf8' })).toContain('ok');
  expect(execFileSync(nativeTest('sdk_async_test'), { encoding: 'utf8' })).toContain('ok');
  expect(execFileSync(nativeTest('runtime_test'), { encoding: 'utf8' })).toContain('ok');
}, 60_000);

it('shows other addons nothing but the entry points of Node-API', () => {
  const addon = fileURLToPath(new URL('../native/build/Release/tenon_cpu.node', import.meta.url));
  const symbols = execFileSync('nm', ['-D', '--defined-only', addon], { encoding: 'utf8' })
    .trim()
    .split('\n');
  const names = symbols.map((line) => line.split(' ').at(-1));
  expect(names.toSorted()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
});

describe('the device', () => {
  it('says what it is and how much memory it may use', async () => {
    const [device] = await backend.devices();
    expect(device).toMatchObject({ id: 'cpu:0', class: 'cpu', usable: true, preferredDtype: 'bf16', memoryIsShared: true }); // prettier-ignore
    expect(device!.memoryBytes).toBeGreaterThan(2 ** 28);
    expect(device!.freeBytes).toBeLessThanOrEqual(device!.memoryBytes);
    expect(Number(backend.info.runtime.threads)).toBeGreaterThan(0);
  });

  it('is the only one, and says so', async () => {
    const parallel = { rank: 1, size: 2, groupId: 'pair' };
    await expect(backend.open(['cpu:0'], { parallel })).rejects.toMatchObject({ code: 'config.invalid-option' }); // prettier-ignore
    await expect(backend.open(['cpu:1'], {})).rejects.toMatchObject({ code: 'config.device-not-found' });
    await expect(backend.open(['cpu:0'], { numThreads: 5000 })).rejects.toMatchObject({ code: 'config.invalid-option' }); // prettier-ignore
  });

  it('computes from weights in every scheme, and knows no others', async () => {
    const group = await backend.open(['cpu:0'], {});
    const linear = (weightScheme?: WeightScheme) =>
      ({ op: 'linear', attrs: {}, dtypes: ['bf16', 'bf16', 'f32'], weightScheme }) as const;
    const { answers } = await group.negotiate({ ops: [linear(), ...weightSchemeNames.map(linear)] });
    expect(answers.every(({ support }) => support === 'native')).toBe(true);
    const { isa } = backend.info.runtime;
    expect(new Set(answers.map(({ kernel }) => kernel))).toEqual(
      new Set([`linear ${isa}`, `linear grouped ${isa}`]),
    );
    await expect(group.negotiate({ ops: [linear('int3:g7' as WeightScheme)] })).rejects.toThrow(
      'weightScheme',
    );
    await group.close();
  });

  it('answers for each op, with the reason of a refusal', async () => {
    const group = await backend.open(['cpu:0'], {});
    const rope = (headDim: number) =>
      ({
        op: 'rope',
        attrs: { numHeads: 1, headDim, rotaryDim: 2, interleaved: 0 },
        dtypes: ['f32'],
      }) as const;
    const { answers, batchInvariant } = await group.negotiate({ ops: [rope(64), rope(7), rope(512)] });
    expect(answers.map(({ support }) => support)).toEqual(['native', 'unsupported', 'unsupported']);
    expect(answers[0]!.kernel).toBe(`rope ${backend.info.runtime.isa}`);
    expect(answers[1]!.reason).toBe('headDim 7; even numbers up to 256 are supported');
    expect(batchInvariant).toBe(true);
    expect(group.constraints).toMatchObject({ blockSizes: [32, 16, 64, 128], stepsInFlight: 2, preferredSeqs: 128, slowestOperationsPerSecond: 5e9 }); // prettier-ignore
    expect(group.constraints.preferredPromptTokensBesideDecodes).toBe(group.constraints.preferredBatchedTokens / 4); // prettier-ignore
    expect(group.kvBlockBytes({ numKvHeads: 3, headDim: 64, dtype: 'bf16' }, 32)).toBe(2 * 3 * 64 * 32 * 2);
    await group.close();
  });
});

describe('steps', () => {
  it('run in order, several in flight, each in its own buffers', async () => {
    const group = await backend.open(['cpu:0'], { numThreads: 2 });
    const done: number[] = [];
    let finished = (): void => {};
    const executable = await group.load(tinyPlan(), writeTable(table), {
      onStepDone: (stepId) => {
        done.push(stepId);
        if (done.length === 2) finished();
      },
    });
    const results = [tinyResult(2), tinyResult(1)];
    const both = new Promise<void>((resolve) => (finished = resolve));
    executable.run(tinyStep(7, [2, 0]), results[0]);
    executable.run(tinyStep(8, [5]), results[1]);
    expect(() => executable.run(tinyStep(9, [1]), tinyResult(1))).toThrow('2 steps are in flight already');
    await both;
    expect(done).toEqual([7, 8]);
    expect(rowsOf(results[0])).toEqual([...row(2), ...row(0)]);
    expect(rowsOf(results[1])).toEqual(row(5));
    expect(results[0].subarray(0, 2)).toEqual(Int32Array.of(7, 0));
    await group.close();
  });

  it('that are bad fail alone, with a reason', async () => {
    const { run, executable, group } = await openTiny(backend, table);
    await expect(run([8])).rejects.toMatchObject({ code: 'backend.step-failed', message: 'tokenIds[0] is 8; -1 to 7 are possible' }); // prettier-ignore
    await expect(run(Array(5000).fill(0))).rejects.toMatchObject({ message: 'numTokens is 5000; 0 to 4096 are possible' }); // prettier-ignore
    expect(() => executable.run(new Float32Array(8), tinyResult(1))).toThrow('run(Int32Array, Int32Array)');
    expect(await run([4])).toEqual(row(4));
    await group.close();
  });

  it('keep their buffers alive while nobody else does', async () => {
    const { executable, group, run } = await openTiny(backend, table);
    for (let i = 0; i < 200; i++) expect(await run([i % 8, 1])).toEqual([...row(i % 8), ...row(1)]);
    expect(executable.memory()).toEqual([
      { arena: 'weights', usedBytes: expect.any(Number) },
      { arena: 'kv', usedBytes: 0 },
      { arena: 'workspace', usedBytes: expect.any(Number) },
    ]);
    await group.close();
  });

  it('report what their callback throws as the program sees fit, and go on', async () => {
    const script = `
      import backend from '@tenon/backend-cpu';
      import { openTiny, tinyPlan, tinyResult, tinyStep, writeTable } from '${new URL('fixtures/tiny-plan.mjs', import.meta.url)}';
      process.on('uncaughtException', (error) => console.log('caught', error.message));
      const group = await backend.create({ log() {} }).open(['cpu:0'], {});
      let steps = 0;
      const executable = await group.load(tinyPlan(), writeTable('${table}'), {
        onStepDone: (id) => { if (++steps === 1) throw new Error('callback'); console.log('done', id); } });
      executable.run(tinyStep(1, [1]), tinyResult(1));
      executable.run(tinyStep(2, [1]), tinyResult(1));`;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], { cwd: here, encoding: 'utf8' }); // prettier-ignore
    expect(output.trim().split('\n').toSorted()).toEqual(['caught callback', 'done 2']);
  });
});

describe('loading', () => {
  it('refuses plans that do not fit, with a code and a reason', async () => {
    const group = await backend.open(['cpu:0'], {});
    const load = (change: object) =>
      group.load({ ...tinyPlan(), ...change }, writeTable(table), { onStepDone: () => {} });
    const missing = { weights: [{ ...tinyPlan().weights[0], parts: ['absent'] }] };
    await expect(load(missing)).rejects.toMatchObject({ code: 'config.weights-missing', message: "the checkpoint has no tensor 'absent'" }); // prettier-ignore
    await expect(load({ segments: [{ firstOp: 0, numOps: 2 }] })).rejects.toMatchObject({ code: 'backend.load-failed' }); // prettier-ignore
    await expect(load({ weights: [] })).rejects.toMatchObject({ code: 'backend.load-failed' });
    const huge = { arenaBytes: 2 ** 52 };
    await expect(load(huge)).rejects.toMatchObject({ code: 'backend.out-of-memory' });
    const { tensors } = tinyPlan();
    const i32Output = { tensors: [...tensors.slice(0, 2), { ...tensors[2], dtype: 'i32' }] };
    await expect(load(i32Output)).rejects.toMatchObject({ code: 'backend.load-failed' });
    const executable = await load({});
    await executable.close();
    await group.close();
  });

  it('reports progress up to the whole', async () => {
    const group = await backend.open(['cpu:0'], {});
    const seen: number[] = [];
    await group.load(tinyPlan(), writeTable(table), {
      onStepDone: () => {},
      onProgress: (loaded, total) => seen.push(loaded / total),
    });
    expect(seen.at(-1)).toBe(1);
    await group.close();
  });

  it('uses only codes that core knows', async () => {
    const group = await backend.open(['cpu:0'], {});
    const error = await group.load({ ...tinyPlan(), weights: [] }, writeTable(table), { onStepDone: () => {} }).catch((e: unknown) => e); // prettier-ignore
    expect(Object.keys(errorCodes)).toContain((error as { code: string }).code);
    await group.close();
  });
});

describe('closing', () => {
  it('waits for steps in flight, and may be repeated', async () => {
    const { executable, group, run } = await openTiny(backend, table);
    const step = run([6]);
    const closes = [executable.close(), executable.close()];
    expect(() => executable.run(tinyStep(1, [1]), tinyResult(1))).toThrow('the executable is closed');
    expect(await step).toEqual(row(6));
    await Promise.all(closes);
    expect(executable.memory().every(({ usedBytes }: { usedBytes: number }) => usedBytes === 0)).toBe(true);
    await Promise.all([group.close(), group.close(), executable.close()]);
    await executable.close();
    await expect(group.load(tinyPlan(), writeTable(table), {})).rejects.toThrow();
  });

  it('happens a hundred times without leaving memory or threads behind', async () => {
    for (let i = 0; i < 100; i++) {
      const { group, run } = await openTiny(backend, table);
      expect(await run([i % 8])).toEqual(row(i % 8));
      await group.close();
    }
    const { group } = await openTiny(backend, table);
    await group.close();
    const status = execFileSync('ps', ['-o', 'nlwp=', String(process.pid)], { encoding: 'utf8' });
    expect(Number(status)).toBeLessThan(40);
  });
});

const here = fileURLToPath(new URL('.', import.meta.url));
const inProcess = (mode: string) =>
  spawnSync(process.execPath, [join(here, 'fixtures/in-process.mjs'), mode, table], {
    cwd: here,
    encoding: 'utf8',
    timeout: 20_000,
  });

describe('a process', () => {
  it('uses no CPU while no step runs', () => {
    const { stdout } = inProcess('idle');
    const { answer, cpuMs } = JSON.parse(stdout);
    expect(answer).toEqual(row(3));
    expect(cpuMs).toBeLessThan(10);
  });

  it('may end with everything left open, also in the middle of a step', () => {
    const left = inProcess('leave');
    expect(left).toMatchObject({ status: 0, signal: null });
    expect(inProcess('exit-while-running')).toMatchObject({ status: 3, signal: null });
  });

  it('may have the addon in several threads, and end those in the middle of their steps', () => {
    const { stdout, stderr, status } = inProcess('workers');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ answer: row(3), answers: [row(3), row(3), row(3)], again: row(5) });
  });

  it('refuses environment values that cannot be followed', () => {
    const open = (env: Record<string, string>) => {
      const script = `import backend from '@tenon/backend-cpu';
        const cpu = backend.create({ log() {} });
        const [device] = await cpu.devices();
        console.log(device.usable, device.reason ?? '', cpu.info.runtime.threads);
        await cpu.open(['cpu:0'], {}).then((group) => group.close(), (error) => console.log(error.code, error.message));`;
      const options = { cwd: here, encoding: 'utf8', env: { ...process.env, ...env } } as const;
      return execFileSync(process.execPath, ['--input-type=module', '-e', script], options);
    };
    expect(open({ TENON_CPU_ISA: 'sse9' })).toMatch(/^false TENON_CPU_ISA is 'sse9'; this machine runs: generic.*\nconfig\.invalid-environment TENON_CPU_ISA/); // prettier-ignore
    expect(open({ TENON_CPU_THREADS: 'many' })).toMatch(/config\.invalid-environment TENON_CPU_THREADS is 'many'; a number from 1 to 1024/); // prettier-ignore
    expect(open({ TENON_CPU_THREADS: '0' })).toContain('config.invalid-environment');
    expect(open({ TENON_CPU_ISA: 'generic', TENON_CPU_THREADS: '3' })).toBe('true  3\n');
  });
});
