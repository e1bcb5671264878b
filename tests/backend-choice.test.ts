/** What an application sees of backends that crash, hang, exit, throw or print when they are loaded: a line each, and a server. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, serve, tenon } from './serve-process.js';

const conformance = pathToFileURL(
  join(import.meta.dirname, '../packages/core/dist/conformance/index.js'),
).href;

/** The code of a package by its backend's id, which is also what `ps` shows of its probe. */
const codes: Readonly<Record<string, string>> = {
  null: `import { createNullBackend } from '${conformance}'; export default createNullBackend({ neverSample: [0, 1, 2] });`,
  segfaulting: `process.kill(process.pid, 'SIGSEGV'); while (true);`,
  hanging: 'while (true);',
  exiting: 'process.exit(0);',
  throwing: `throw new Error('driver 7 is too old; install 8');`,
  printing: `console.log('Loading the driver'); export default { api: { major: 1, minor: 0, features: [] }, create: () => ({ info: { id: 'printing', version: '1', runtime: {} }, devices: async () => [] }) };`,
  foreign: `import { createRequire } from 'node:module'; createRequire(import.meta.url)('./addon.node');`,
  newer: 'export default { api: { major: 1, minor: 999, features: [] }, create: () => {} };',
};
const ids = Object.keys(codes);
const reasons: Readonly<Record<string, RegExp>> = {
  segfaulting: /^it was ended by SIGSEGV while its module was loading$/,
  hanging: /^it did not end within 3 s; the time was up while its module was loading$/,
  exiting: /^it ended the process with exit code 0 while its module was loading$/,
  throwing: /driver 7 is too old; install 8$/,
  printing: /^it prints to stdout, which belongs to the command: "Loading the driver\\n"$/,
  foreign: /addon\.node: (invalid ELF header|file too short)$/,
  newer: /it was made for backend api 1\.999, and this is 1\.\d+; install a newer @tenon\/core$/,
};

let app: string;
beforeAll(() => {
  app = mkdtempSync(join(tmpdir(), 'tenon-backend-choice-'));
  writeApp('package.json', { dependencies: Object.fromEntries(ids.map((id) => [`${id}-backend`, '1'])) });
  for (const id of ids) addBackend(id);
  writeApp('more/package.json', {
    name: 'more',
    version: '2.0.0',
    tenon: {
      statLoggers: [
        { name: 'csv', entry: './csv.js' },
        { name: 'lost', entry: './lost.js' },
      ],
    },
  });
  writeApp('more/csv.js', 'throw new Error("not to be run")');
  mkdirSync(join(app, 'node_modules/.bin'));
  symlinkSync(tenon, join(app, 'node_modules/.bin/tenon'));
});
afterAll(() => rmSync(app, { recursive: true }));

function writeApp(path: string, content: string | object): void {
  mkdirSync(join(app, path, '..'), { recursive: true });
  writeFileSync(join(app, path), typeof content === 'string' ? content : JSON.stringify(content));
}

function addBackend(id: string): void {
  const folder = `node_modules/${id}-backend`;
  writeApp(`${folder}/package.json`, {
    name: `${id}-backend`,
    version: '1.2.3',
    type: 'module',
    tenon: { backend: { id, entry: './index.js', api: '^1.0' } },
    peerDependencies: { '@tenon/core': '<2' },
  });
  writeApp(`${folder}/index.js`, codes[id]!);
  writeApp(`${folder}/addon.node`, 'no library, but more text than its header would have'.repeat(9));
}

/** Probes that run for this application. */
const numProbes = (): number =>
  execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes('probe-child') && line.includes(app)).length;

interface Report {
  readonly id: string;
  readonly source: string;
  readonly state: string;
  readonly reason?: string;
  readonly remedy?: string;
  readonly devices: readonly { readonly id: string }[];
}

describe('tenon doctor', () => {
  it('has a state, a reason and a remedy for every backend, and is done in time', async () => {
    const startMs = performance.now();
    // Twice the default: nine probes share two cores here.
    const environment = { TENON_PROBE_TIMEOUT: '3' };
    const { code, stdout, stderr } = await run(['doctor', '--json'], { folder: app, environment });
    expect(performance.now() - startMs).toBeLessThan(8000);
    expect(code, stderr).toBe(0);
    const { backends } = JSON.parse(stdout) as { backends: readonly Report[] };
    const byId = new Map(backends.map((report) => [report.id, report]));
    for (const [id, reason] of Object.entries(reasons)) {
      expect(byId.get(id), id).toMatchObject({ state: 'probe-failed', source: 'dependency', devices: [] });
      expect(byId.get(id)!.reason, id).toMatch(reason);
      expect(byId.get(id)!.remedy, id).toMatch(/\w+ \w+/);
    }
    expect(byId.get('null')).toMatchObject({ state: 'ok', devices: [{ id: 'null:0' }] });
    expect(byId.get('cpu')).toMatchObject({ state: 'ok', source: 'first-party' });
    expect(numProbes()).toBe(0);
  });

  it('tells people the same, and devices in a table', async () => {
    const { stdout } = await run(['doctor'], { folder: app, environment: { TENON_PLUGINS: 'null-backend,throwing-backend' } }); // prettier-ignore
    expect(stdout).toMatch(
      /^throwing: throwing-backend 1\.2\.3 \(dependency\): probe-failed\n {2}reason: .*driver 7.*\n {2}remedy: /m,
    );
    expect(stdout).toMatch(
      /^hanging: hanging-backend 1\.2\.3 \(dependency\): untrusted\n {2}reason: its code may not run\n {2}remedy: to allow it, add hanging-backend to TENON_PLUGINS$/m,
    );
    const devices = await run(['devices'], { folder: app, environment: { TENON_PLUGINS: 'null-backend' } });
    expect(devices.stdout).toMatch(/^device +usable +class +name/);
    expect(devices.stdout).toMatch(/^cpu:0 +yes +cpu .*@tenon\/backend-cpu \d/m);
    expect(devices.stdout).toMatch(/^null:0 +yes +other .*null-backend 1\.2\.3$/m);
  });

  it('lists what other plugins there are, without running them', async () => {
    const { code, stdout, stderr } = await run(['doctor', '--plugin', './more'], { folder: app, environment: { TENON_PLUGINS: '' } }); // prettier-ignore
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^statLoggers csv: more 2\.0\.0 \(option\): ok$/m);
    expect(stdout).toMatch(
      /^statLoggers lost: more 2\.0\.0 \(option\): incompatible\n {2}reason: .*lost\.js.* does not exist/m,
    );
  });

  it('ends with status 1 where no device can be used', async () => {
    const lonely = ['devices', '--json'];
    const environment = { TENON_PROBE_TIMEOUT: '0.001' };
    const { code, stdout } = await run(lonely, { folder: app, environment });
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ devices: [] });
  });
});

describe('tenon serve', () => {
  it.each([
    ['segfaulting', {}, /config\.device-unusable.*'segfaulting' cannot be used: segfaulting-backend 1\.2\.3 is probe-failed: it was ended by SIGSEGV/],
    ['hanging', { TENON_PROBE_TIMEOUT: '1' }, /config\.device-unusable.*it did not end within 1 s.*TENON_PROBE_TIMEOUT/],
    ['null', { TENON_PLUGINS: '' }, /config\.device-unusable.*untrusted.*add null-backend to TENON_PLUGINS/],
    ['tpu', {}, /config\.device-not-found.*no backend 'tpu'; found: null \(null-backend 1\.2\.3\), .*install @tenon\/backend-tpu/],
    ['null:1', {}, /config\.device-not-found.*no (--)?device 'null:1'; null has: null:0/],
  ])('does not start where %s is asked for and cannot be had', async (device, environment, message) => {
    const { code, stdout, stderr } = await run(['serve', '--device', device, '--port', '0'], { folder: app, environment });
    expect(code, stderr).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(message);
    expect(numProbes()).toBe(0);
  }); // prettier-ignore

  it('takes the device that is asked for, and probes no other', async () => {
    const server = await serve(['--device', 'null'], {}, app);
    await using _ = server;
    expect(server.output()).toMatch(/^device +null:0/m);
    expect(server.output()).not.toContain('not used');
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toMatch(/^tenon:backend_info\{.*backend="null",version="[\d.]+",device="null:0"\} 1$/m);
    const models = await (await fetch(`${server.url}/v1/models`)).json();
    expect(models).toMatchObject({ data: [{ backend: { id: 'null', device: 'null:0' } }] });
  });

  it('with auto, tells in a line each what has failed, and serves with the best that is left', async () => {
    const server = await serve(['--device', 'auto'], { TENON_PROBE_TIMEOUT: '3' }, app);
    await using _ = server;
    for (const id of Object.keys(reasons)) {
      const lines = server.output().split('\n').filter((line) => line.includes(`not used: ${id}-backend 1.2.3: probe-failed: `)); // prettier-ignore
      expect(lines, id).toHaveLength(1);
    }
    expect(server.output()).toMatch(/^device +null:0/m);
  });

  it('leaves no probe behind when it is killed', async () => {
    const child = spawn(tenon, ['serve', '--device', 'hanging', '--port', '0'], {
      cwd: app,
      stdio: 'ignore',
    });
    while (numProbes() === 0 && child.exitCode === null) await sleep(10);
    expect(numProbes()).toBe(1);
    child.kill('SIGKILL');
    const endMs = performance.now() + 5000;
    while (numProbes() > 0 && performance.now() < endMs) await sleep(50);
    expect(numProbes()).toBe(0);
  });
});

it('explains which device auto takes, and why', async () => {
  const environment = { TENON_PLUGINS: 'null-backend,throwing-backend' };
  const { code, stdout, stderr } = await run(['explain', '--device', 'auto'], { folder: app, environment });
  expect(code, stderr).toBe(0);
  expect(stdout).toMatch(/^device +named +plan +fits +class +conformance +hardware +package$/m);
  expect(stdout).toMatch(/^null:0 +no +valid +yes +other +none +- +null-backend 1\.2\.3$/m);
  expect(stdout).toMatch(/^cpu:0 +no +valid +yes +cpu +L5 +- +@tenon\/backend-cpu/m);
  expect(stdout).toContain("null:0 is chosen: by 'class' (other) it comes before cpu:0 (cpu)");
  expect(stderr).toMatch(/^not used: throwing-backend 1\.2\.3: probe-failed: /m);
});
