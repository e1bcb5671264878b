/** Probes of packages that do what no backend may. Each runs in a process of its own, from the sources. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BackendManifest } from './manifest.js';
import { probeBackend, probeTimeoutMs } from './probe.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tenon-probe-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const device = {
  id: 'toy:0', class: 'npu', name: 'Toy', usable: true, memoryBytes: 1, freeBytes: 1, dtypes: ['f32'], preferredDtype: 'f32',
}; // prettier-ignore
const info = { id: 'toy', owner: 'o', version: '1.2.3', runtime: { driver: '7' } };

/** A backend's module, with code of its own in one of the places where it runs. */
function codeOf(places: {
  start?: string;
  create?: string;
  devices?: string;
  end?: string;
  api?: string;
}): string {
  const {
    start = '',
    create = '',
    devices = '',
    end = '',
    api = '{ major: 1, minor: 0, features: [] }',
  } = places;
  return `${start}
    process.on('exit', () => { ${end} });
    const devices = async () => { ${devices}; return [${JSON.stringify(device)}]; };
    export default { api: ${api}, create: (host) => { ${create}; return { info: ${JSON.stringify(info)}, devices }; } };`;
}

let numModules = 0;
function probe(code: string, timeoutMs = 20_000): ReturnType<typeof probeBackend> {
  const entry = join(folder, `backend-${numModules++}.mjs`);
  writeFileSync(entry, code);
  return probeBackend({ packageName: 'toy-backend', id: 'toy', entry } as BackendManifest, { timeoutMs });
}

const numProcesses = (word: string): number =>
  execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(word)).length;

describe('probeBackend', () => {
  it('finds the devices of a backend, and what it runs on', async () => {
    const code = codeOf({ create: "host.log('warn', 'hello'); process.stderr.write('a banner')" });
    expect(await probe(code)).toEqual({ facts: { info, devices: [device] } });
  });

  it.concurrent.each<[string, string, RegExp]>([
    ['a segfault', codeOf({ create: "process.kill(process.pid, 'SIGSEGV'); while (true);" }), /^it was ended by SIGSEGV in create\(\)$/],
    ['an abort', codeOf({ devices: "console.error('terminate called'); process.abort()" }), /^it was ended by SIGABRT in devices\(\): /],
    ['exit(0)', codeOf({ start: 'process.exit(0);' }), /^it ended the process with exit code 0 while its module was loading$/],
    ['exit(3)', codeOf({ devices: 'process.exit(3)' }), /^it ended the process with exit code 3 in devices\(\)$/],
    ['a thrown error', codeOf({ start: "throw new Error('no\\n driver');" }), /^backend package toy-backend: its entry failed to load: no driver$/],
    ['an error in devices', codeOf({ devices: "throw new Error('no driver')" }), /^no driver$/],
    ['an error that nobody catches', codeOf({ devices: "setTimeout(() => { throw new Error('late'); }); await new Promise(() => {})" }), /^it ended the process with exit code 1 in devices\(\): .*late/],
    ['a crash at the end', codeOf({ end: "process.kill(process.pid, 'SIGSEGV')" }), /^it was ended by SIGSEGV while the process was exiting$/],
    ['garbage on stdout', codeOf({ create: "console.log('Loading driver 7 …')" }), /^it prints to stdout, which belongs to the command: "Loading driver 7 …\\n"$/],
    ['a newer contract', codeOf({ api: '{ major: 1, minor: 999, features: [] }' }), /it was made for backend api 1\.999, and this is 1\.\d+; install a newer @tenon\/core$/],
    ['no backend', 'export default 3;', /has no backend as its default export; expected \{ api, create \}$/],
    ['no such library', codeOf({ create: "process.dlopen({ exports: {} }, '/no/such.node')" }), /^\/no\/such\.node: cannot open shared object file/],
  ])('survives %s', async (_what, code, reason) => {
    const outcome = await probe(code);
    expect(outcome).toMatchObject({ problem: { reason: expect.stringMatching(reason), remedy: expect.stringMatching(/\w/) } });
  }); // prettier-ignore

  it.concurrent.each([
    ['while loading', { start: 'while (true);' }, 'while its module was loading'],
    ['in a promise that never settles', { devices: 'await new Promise(() => {})' }, 'in devices()'],
    ['at the end', { end: 'while (true);' }, 'while the process was exiting'],
  ])('ends what hangs %s', async (_where, places, during) => {
    const outcome = await probe(codeOf(places), 3000);
    expect(outcome).toMatchObject({
      problem: {
        reason: `it did not end within 3 s; the time was up ${during}`,
        remedy: expect.stringContaining('set TENON_PROBE_TIMEOUT to more than 3'),
      },
    });
  });

  it('leaves none of the processes that a backend starts', async () => {
    const start = `import { spawn } from 'node:child_process'; spawn('sleep', ['86321'], { stdio: 'inherit' });`;
    expect(await probe(codeOf({ start }))).toHaveProperty('facts');
    expect(await probe(codeOf({ start, devices: 'while (true);' }), 3000)).toHaveProperty('problem');
    expect(numProcesses('sleep 86321')).toBe(0);
  });
});

describe('probeTimeoutMs', () => {
  it('reads seconds, and refuses what is none', () => {
    expect(probeTimeoutMs({}, 1500)).toBe(1500);
    expect(probeTimeoutMs({ TENON_PROBE_TIMEOUT: '0.5' }, 1500)).toBe(500);
    for (const text of ['', 'soon', '0', '-1', '4000']) {
      expect(() => probeTimeoutMs({ TENON_PROBE_TIMEOUT: text }, 1500)).toThrow(
        `TENON_PROBE_TIMEOUT is '${text}'; expected seconds above 0, up to 3600`,
      );
    }
  });
});
