import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DeviceInfo } from '../backend/index.js';
import { TenonError } from '../errors.js';
import { chooseDevice, type Assess, type ChooseOptions } from './choose-device.js';
import type { BackendReport } from './survey.js';

let folder: string;
let warnings: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tenon-choose-'));
  warnings = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

const usable = {
  class: 'npu', name: 'Toy', usable: true, memoryBytes: 8, freeBytes: 8, dtypes: ['f32'], preferredDtype: 'f32',
} as const; // prettier-ignore
const unusable = { ...usable, usable: false, reason: 'no driver', remedy: 'install it' };

type Device = Partial<DeviceInfo>;
interface ReportFields extends Partial<Omit<BackendReport, 'devices'>> {
  /** What a probe has found. */
  readonly devices?: readonly Device[];
  /** What the backend says in this process, if something else. */
  readonly code?: string;
  readonly pci?: readonly string[];
  readonly conformance?: object;
}

/** A backend that was probed, with its code in a file. */
function report(id: string, fields: ReportFields = {}): BackendReport {
  const { devices: given = [{}], code, pci = [], conformance, ...rest } = fields;
  const devices = given.map((device, i) => ({ ...usable, id: `${id}:${i}`, ...device })) as DeviceInfo[];
  const info = { id, owner: 'o', version: '1.2.3', runtime: {} };
  const body = code ?? `return ${JSON.stringify(devices)}`;
  const entry = join(folder, `${id}.mjs`);
  writeFileSync(entry, `export default { api: { major: 1, minor: 0, features: [] }, create: () => ({ info: ${JSON.stringify(info)}, devices: async () => { ${body} } }) };`); // prettier-ignore
  writeFileSync(join(folder, `${id}.json`), JSON.stringify(conformance ?? ''));
  const name = `${id}-backend`;
  const manifest = {
    packageName: name, packageVersion: '1.2.3', folder, id, entry, api: '^1.0',
    match: [{ class: 'npu', pci }], conformance: join(folder, `${id}.json`),
  } as const; // prettier-ignore
  return { name, version: '1.2.3', source: 'dependency', id, manifest, state: 'ok', info, devices, ...rest };
}

const failed = (id: string, state: BackendReport['state'], rest: Partial<BackendReport> = {}): BackendReport => ({
  ...report(id), info: undefined, devices: [], state, reason: 'it was ended by SIGSEGV', remedy: 'update it', ...rest,
}); // prettier-ignore

const runsEverywhere: Assess = async () => ({});

async function choose(device: string, reports: readonly BackendReport[], rest: Partial<ChooseOptions> = {}) {
  const host = { log: (level: string, message: string) => void warnings.push(`${level}: ${message}`) };
  return chooseDevice({ device, reports, host, assess: runsEverywhere, ...rest });
}
const idOf = async (...args: Parameters<typeof choose>) => (await choose(...args)).device.id;

describe('a device that is asked for', () => {
  it('is opened, by the id of its backend or its own', async () => {
    const reports = [report('toy', { devices: [{ ...unusable }, {}] }), report('other')];
    expect(await idOf('toy', reports)).toBe('toy:1');
    expect(await idOf('toy:1', reports)).toBe('toy:1');
    expect(await idOf('other', reports)).toBe('other:0');
    expect(warnings).toEqual([]);
  });

  it('is an error where there is no such device, with those there are', async () => {
    const reports = [report('toy'), failed('odd', 'incompatible', { id: undefined, reason: 'no id' })];
    await expect(choose('toy:4', reports)).rejects.toMatchObject({
      code: 'config.device-not-found',
      message: "no device 'toy:4'; toy has: toy:0",
    });
    await expect(choose('cuda', reports)).rejects.toMatchObject({
      code: 'config.device-not-found',
      message:
        "no backend 'cuda'; found: toy (toy-backend 1.2.3), ? (odd-backend 1.2.3: no id); " +
        'install @tenon/backend-cuda, or name another with --plugin',
    });
    await expect(choose('cuda', [])).rejects.toThrow("no backend 'cuda'; found: none; install");
  });

  it.each([
    ['untrusted', 'config.device-unusable'],
    ['probe-failed', 'config.device-unusable'],
    ['incompatible', 'config.backend-invalid'],
  ] as const)('is an error where its backend is %s, never another device', async (state, code) => {
    await expect(choose('toy', [failed('toy', state), report('other')])).rejects.toMatchObject({
      code,
      message: `device 'toy' cannot be used: toy-backend 1.2.3 is ${state}: it was ended by SIGSEGV; update it`,
    });
  });

  it('is an error where it cannot be used, by the probe or in this process', async () => {
    const message = 'device toy:0 (Toy) cannot be used: no driver; install it';
    const broken = report('toy', { state: 'unusable', devices: [unusable] });
    await expect(choose('toy', [broken])).rejects.toMatchObject({ code: 'config.device-unusable', message });
    const lost = report('toy', { code: `return ${JSON.stringify([{ ...unusable, id: 'toy:0' }])}` });
    await expect(choose('toy:0', [lost])).rejects.toMatchObject({ code: 'config.device-unusable', message });
  });

  it.each(['option', 'TENON_PLUGINS'] as const)('needs every plugin of %s to be right', async (source) => {
    const reports = [failed('odd', 'incompatible', { source }), report('toy')];
    for (const device of ['toy', 'auto']) {
      await expect(choose(device, reports)).rejects.toMatchObject({
        code: 'config.backend-invalid',
        message: "plugin 'odd-backend': it was ended by SIGSEGV; update it",
      });
    }
  });
});

describe('auto', () => {
  it('takes the only device there is, without a look at the model', async () => {
    const assess = () => Promise.reject(new Error('asked'));
    expect(await idOf('auto', [report('toy'), failed('b', 'ignored')], { assess })).toBe('toy:0');
    expect(warnings).toEqual([]);
  });

  it('tells what has failed, a line each', async () => {
    const reports = [
      failed('crashing', 'probe-failed'),
      failed('foreign', 'incompatible'),
      failed('strange', 'untrusted'),
      failed('other', 'ignored'),
      report('gone', { code: "throw new Error('no\\n card')" }),
      report('toy', { devices: [unusable, {}] }),
    ];
    expect(await idOf('auto', reports)).toBe('toy:1');
    expect(warnings).toEqual([
      'warn: not used: crashing-backend 1.2.3: probe-failed: it was ended by SIGSEGV; update it',
      'warn: not used: foreign-backend 1.2.3: incompatible: it was ended by SIGSEGV; update it',
      'warn: not used: strange-backend 1.2.3: untrusted: it was ended by SIGSEGV; update it',
      'warn: not used: gone-backend 1.2.3: no card',
      'warn: not used: toy:0 (Toy): no driver; install it',
    ]);
  });

  it('is an error where nothing can be used', async () => {
    const reports = [failed('crashing', 'probe-failed'), report('toy', { state: 'unusable', devices: [unusable], reason: 'no driver' })]; // prettier-ignore
    await expect(choose('auto', reports)).rejects.toMatchObject({
      code: 'config.device-unusable',
      message:
        'no device can be used: crashing-backend 1.2.3: probe-failed: it was ended by SIGSEGV; update it; ' +
        'toy-backend 1.2.3: unusable: no driver',
    });
    await expect(choose('auto', [failed('other', 'ignored')])).rejects.toThrow(
      'no device can be used: other-backend 1.2.3: ignored: it was ended by SIGSEGV; update it',
    );
    await expect(choose('auto', [])).rejects.toThrow(
      "no backend 'auto'; found: none; install @tenon/backend-cpu",
    );
  });

  const passed = (id: string, level: number) => ({ conformance: { backend: { id }, level } });
  const cpu = report.bind(undefined, 'cpu', { devices: [{ class: 'cpu' }] });

  it.each<[string, () => BackendReport[], string]>([
    ['the class of the device', () => [cpu(), report('npu')], "npu:0 is chosen: by 'class' (npu) it comes before cpu:0 (cpu)"],
    ['what the user has named, before all else', () => [report('npu'), { ...cpu(), source: 'option' }], "cpu:0 is chosen: by 'named' (yes) it comes before npu:0 (no)"],
    ['conformance', () => [report('a', passed('a', 0)), report('b', passed('b', 2))], "b:0 is chosen: by 'conformance' (L2) it comes before a:0 (L0)"],
    ['a report at all', () => [report('a', passed('other', 5)), report('b', passed('b', 0))], "b:0 is chosen: by 'conformance' (L0) it comes before a:0 (none)"],
    ['its id, at last', () => [report('b'), report('a', { conformance: { level: 'all' } })], 'a:0 is chosen: the next, b:0, is equal in all but its id'],
    ['its number', () => [report('a', { devices: [{}, {}, {}] })], 'a:0 is chosen: the next, a:1, is equal in all but its id'],
  ])('ranks by %s', async (_what, reports, reason) => {
    const { explanation } = await choose('auto', reports(), { explains: true });
    expect(explanation.at(-1)).toBe(reason);
    expect(explanation[0]).toMatch(/^device +named +plan +fits +class +conformance +hardware +package$/);
    expect(await idOf('auto', reports())).toBe(reason.split(' ')[0]);
  }); // prettier-ignore

  const noPlan = new TenonError('unsupported.op', 'the device cannot run 1 op(s) of this model:\n  rope');
  const noRoom = new TenonError('capacity.memory', 'the model needs 9 MiB');
  const misfits = { gpu: { planProblem: noPlan }, npu: { memoryProblem: noRoom } } as const;
  const assess: Assess = async ({ device }) => misfits[device.class as 'gpu'] ?? {};

  it('passes over devices that do not run the model, and says why', async () => {
    const reports = [report('npu'), report('gpu', { devices: [{ class: 'gpu' }] }), cpu()];
    expect(await idOf('auto', reports, { assess })).toBe('cpu:0');
    expect(warnings).toEqual([
      'warn: not used: npu:0 (Toy): the model needs 9 MiB',
      'warn: not used: gpu:0 (Toy): the device cannot run 1 op(s) of this model: rope',
    ]);
    const { explanation } = await choose('auto', reports, { assess, explains: true });
    expect(explanation.slice(1, 4).map((line) => line.split(/ {2,}/).slice(0, 5))).toEqual([
      ['cpu:0', 'no', 'valid', 'yes', 'cpu'],
      ['npu:0', 'no', 'valid', 'no', 'npu'],
      ['gpu:0', 'no', 'invalid', 'no', 'gpu'],
    ]);
  });

  it('fails as the best device does where none runs the model', async () => {
    await expect(choose('auto', [report('npu'), report('other')], { assess })).rejects.toBe(noRoom);
    const pinned = [report('npu', { source: 'option' }), cpu()];
    await expect(choose('auto', pinned, { assess })).rejects.toBe(noRoom);
  });

  it('asks once about devices that are the same', async () => {
    let numAsked = 0;
    const counting: Assess = async () => (numAsked++, {});
    const devices = [{}, {}, {}, { freeBytes: 1 }];
    await choose('auto', [report('npu', { devices })], { assess: counting });
    expect(numAsked).toBe(2);
  });
});
