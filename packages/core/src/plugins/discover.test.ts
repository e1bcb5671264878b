import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { chooseDevice } from './choose-device.js';
import { discoverBackends } from './discover.js';

let app: string;
beforeEach(() => {
  app = mkdtempSync(join(tmpdir(), 'tenon-plugins-'));
});
afterEach(() => rmSync(app, { recursive: true }));

const write = (path: string, content: string) => {
  mkdirSync(join(app, path, '..'), { recursive: true });
  writeFileSync(join(app, path), content);
};
const backend = { id: 'toy', entry: './index.js', api: '^1.0' };

function addPackage(name: string, manifest: object, code?: string): void {
  write(
    `node_modules/${name}/package.json`,
    JSON.stringify({ name, version: '1.2.3', type: 'module', tenon: { backend: manifest } }),
  );
  if (code !== undefined) write(`node_modules/${name}/index.js`, code);
}

/** Source of a backend with one device. */
const codeOf = (id: string, device: object) => `
  const device = ${JSON.stringify({ id: `${id}:0`, class: 'npu', name: 'Toy', usable: true, ...device })};
  export default {
    api: { major: 1, minor: 0, features: [] },
    create: () => ({ info: { id: '${id}' }, devices: async () => [device] }),
  };`;
const host = { log: () => {} };
const discover = (plugins: readonly string[] = [], env = {}) => discoverBackends({ plugins, root: app, env });
const toys = (plugins: readonly string[] = [], env = {}) =>
  discover(plugins, env).filter(({ source }) => source !== 'first-party');

describe('discoverBackends', () => {
  it("reads the manifests of the application's direct dependencies, and no other package's", () => {
    write('package.json', JSON.stringify({ dependencies: { 'toy-backend': '1', lodash: '4' } }));
    addPackage('toy-backend', backend, 'throw new Error("not to be run");');
    addPackage('stray-backend', { ...backend, id: 'stray' });
    expect(toys().map(({ manifest, source }) => [manifest?.id, manifest?.packageVersion, source])).toEqual([
      ['toy', '1.2.3', 'dependency'],
    ]);
  });

  it('puts what the user names first, by option or environment', () => {
    write('package.json', JSON.stringify({ dependencies: { 'toy-backend': '1' } }));
    for (const name of ['toy-backend', 'a-backend', 'b-backend']) addPackage(name, { ...backend, id: name });
    const found = toys(['./node_modules/b-backend'], { TENON_PLUGINS: 'a-backend, toy-backend' });
    expect(found.map(({ manifest, source }) => [manifest?.id, source])).toEqual([
      ['b-backend', 'option'],
      ['a-backend', 'TENON_PLUGINS'],
      ['toy-backend', 'TENON_PLUGINS'],
    ]);
  });

  it('keeps what it cannot use, with the reason', () => {
    write('package.json', JSON.stringify({ dependencies: { 'old-backend': '1', 'odd-backend': '1' } }));
    addPackage('old-backend', { ...backend, api: '^2.0' });
    addPackage('odd-backend', { ...backend, id: 'Not An Id' });
    expect(toys().map(({ problem }) => problem)).toEqual([
      'it needs backend api ^2.0, and this is 1.0',
      'tenon.backend.id is "Not An Id"; expected a lower-case word',
    ]);
  });
});

describe('chooseDevice', () => {
  beforeEach(() => write('package.json', JSON.stringify({ dependencies: { 'toy-backend': '1' } })));

  it('opens the backend that is asked for, and prefers an accelerator when none is', async () => {
    addPackage('toy-backend', backend, codeOf('toy', {}));
    expect((await chooseDevice('toy', toys(), host)).device.id).toBe('toy:0');
    expect((await chooseDevice('toy:0', toys(), host)).device.id).toBe('toy:0');
    expect((await chooseDevice('auto', toys(), host)).device.id).toBe('toy:0');
    await expect(chooseDevice('toy:4', toys(), host)).rejects.toThrow("no device 'toy:4'; toy has: toy:0");
  });

  it('says what was found and how to install what was not; never another device in its place', async () => {
    addPackage('toy-backend', backend, codeOf('toy', {}));
    await expect(chooseDevice('cuda', toys(), host)).rejects.toMatchObject({
      code: 'config.device-not-found',
      message: "no backend 'cuda'; found: toy; install @tenon/backend-cuda, or name another with --plugin",
    });
  });

  it('says why a device cannot be used', async () => {
    addPackage(
      'toy-backend',
      backend,
      codeOf('toy', { usable: false, reason: 'no driver', remedy: 'install the driver' }),
    );
    await expect(chooseDevice('toy', toys(), host)).rejects.toMatchObject({
      code: 'config.device-unusable',
      message: 'device toy:0 (Toy) cannot be used: no driver; install the driver',
    });
    await expect(chooseDevice('auto', toys(), host)).rejects.toMatchObject({
      code: 'config.device-unusable',
      message: 'no device can be used: toy:0: no driver; install the driver',
    });
  });

  it('says what is wrong with a package that the user named', async () => {
    await expect(chooseDevice('auto', toys(['missing-backend']), host)).rejects.toThrow(
      /no package or folder 'missing-backend'/,
    );
    addPackage('broken-backend', backend, 'export default 3;');
    await expect(chooseDevice('toy', toys(['broken-backend']), host)).rejects.toMatchObject({
      code: 'config.backend-invalid',
    });
  });
});
