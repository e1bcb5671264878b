import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findExtension, listExtensions, loadExtension } from './extensions.js';

let app: string;
beforeEach(() => {
  app = mkdtempSync(join(tmpdir(), 'tenon-extensions-'));
});
afterEach(() => rmSync(app, { recursive: true }));

const write = (path: string, content: string) => {
  mkdirSync(join(app, path, '..'), { recursive: true });
  writeFileSync(join(app, path), content);
};
const dependOn = (...names: string[]) =>
  write(
    'package.json',
    JSON.stringify({ dependencies: Object.fromEntries(names.map((name) => [name, '1'])) }),
  );

function addPackage(name: string, tenon: object, code = 'export default { create: () => 7 };'): void {
  write(
    `node_modules/${name}/package.json`,
    JSON.stringify({ name, version: '1.2.3', type: 'module', tenon }),
  );
  write(`node_modules/${name}/index.js`, code);
}

const list = (plugins: readonly string[] = [], env: Readonly<Record<string, string>> = {}) =>
  listExtensions({ plugins, root: app, env: { XDG_CONFIG_HOME: join(app, 'config'), ...env } });
const csv = { statLoggers: [{ name: 'csv', entry: './index.js' }] };

describe('listExtensions', () => {
  it('finds every kind in direct dependencies, with or without a backend, and runs no code', () => {
    dependOn('all-in-one', 'lodash');
    const entry = './index.js';
    const tenon = {
      backend: { id: 'toy', entry, api: '^1.0' },
      models: [{ architecture: 'ToyForCausalLM', entry }],
      modelSources: [{ scheme: 's3-lite', entry }],
      statLoggers: [{ name: 'csv', entry }],
      logitsProcessors: [{ name: 'no_digits', entry }],
      toolParsers: [{ name: 'hermes-2', entry }],
    };
    addPackage('all-in-one', tenon, 'throw new Error("not to be run");');
    addPackage('stray', csv);
    expect(list().map(({ kind, name, packageName, source, state }) => [kind, name, packageName, source, state])).toEqual([
      ['models', 'ToyForCausalLM', 'all-in-one', 'dependency', 'ok'],
      ['modelSources', 's3-lite', 'all-in-one', 'dependency', 'ok'],
      ['statLoggers', 'csv', 'all-in-one', 'dependency', 'ok'],
      ['logitsProcessors', 'no_digits', 'all-in-one', 'dependency', 'ok'],
      ['toolParsers', 'hermes-2', 'all-in-one', 'dependency', 'ok'],
    ]); // prettier-ignore
  });

  it.each([
    [{ statLoggers: 3 }, 'tenon.statLoggers is 3; expected a list of { "name", "entry" }'],
    [{ models: ['x'] }, 'tenon.models[0] is "x"; expected { "architecture", "entry" }'],
    [{ models: [{ entry: './index.js' }] }, 'tenon.models[0].architecture is missing'],
    [
      { modelSources: [{ scheme: 'S3:', entry: './index.js' }] },
      'tenon.modelSources[0].scheme is "S3:"; expected what stands before :// in lower case',
    ],
    [{ toolParsers: [{ name: 7 }] }, 'tenon.toolParsers[0].name is 7; expected a lower-case word'],
    [{ statLoggers: [{ name: 'csv' }] }, 'tenon.statLoggers[0].entry is missing'],
    [{ statLoggers: [{ name: 'csv', entry: 5 }] }, 'tenon.statLoggers[0].entry is 5; expected a path'],
    [
      { statLoggers: [{ name: 'csv', entry: './dist/a.js' }] },
      "tenon.statLoggers[0].entry is './dist/a.js', which does not exist; build or reinstall the package",
    ],
    [
      { statLoggers: [{ name: 'csv', entry: '../other/index.js' }] },
      "tenon.statLoggers[0].entry is '../other/index.js', which leaves the package; expected a path inside it",
    ],
    [
      { statLoggers: [{ name: 'csv', entry: '/etc/hosts' }] },
      "tenon.statLoggers[0].entry is '/etc/hosts', which leaves the package; expected a path inside it",
    ],
  ])('says what is wrong about %j', (tenon, problem) => {
    dependOn('odd');
    addPackage('odd', tenon);
    addPackage('other', {});
    expect(list().map((extension) => [extension.state, extension.problem])).toEqual([
      ['incompatible', problem],
    ]);
  });

  it.each([
    ['^7.0.0', 'it is for @tenon/core ^7.0.0, and this is '],
    ['seven', 'peerDependencies["@tenon/core"] is "seven"; expected a range such as ^'],
  ])('refuses a package that is for @tenon/core %s', (range, reason) => {
    dependOn('odd');
    addPackage('odd', csv);
    const manifest = { name: 'odd', peerDependencies: { '@tenon/core': range }, tenon: csv };
    write('node_modules/odd/package.json', JSON.stringify(manifest));
    expect(list()[0]).toMatchObject({ state: 'incompatible', problem: expect.stringContaining(reason) });
  });

  it('refuses an entry that a link leads out of the package', () => {
    dependOn('linked');
    addPackage('linked', { statLoggers: [{ name: 'csv', entry: './out.js' }] });
    write('secret.js', 'export default {};');
    symlinkSync(join(app, 'secret.js'), join(app, 'node_modules/linked/out.js'));
    expect(list()[0]!.problem).toContain('leaves the package');
  });

  it('lets the first of two with one name count, and reports the other', () => {
    dependOn('a-stats', 'b-stats');
    addPackage('a-stats', csv);
    addPackage('b-stats', csv);
    expect(list().map(({ packageName, state }) => [packageName, state])).toEqual([
      ['a-stats', 'ok'],
      ['b-stats', 'ignored'],
    ]);
    expect(list()[1]!.problem).toBe(
      "a-stats has a stat logger 'csv' too and comes first; to use this one, name its package with --plugin",
    );
    expect(findExtension('statLoggers', 'csv', list(['b-stats'])).packageName).toBe('b-stats');
  });

  it('trusts direct dependencies until TENON_PLUGINS names who is trusted, and registered packages only then', () => {
    dependOn('a-stats', 'b-stats');
    for (const name of ['a-stats', 'b-stats', 'c-stats', 'd-stats'])
      addPackage(name, { statLoggers: [{ name, entry: './index.js' }] });
    write('config/tenon/plugins.json', JSON.stringify({ plugins: ['c-stats'] }));
    const states = (env: Readonly<Record<string, string>>) =>
      Object.fromEntries(list([], env).map(({ name, state }) => [name, state]));
    expect(states({})).toEqual({ 'a-stats': 'ok', 'b-stats': 'ok', 'c-stats': 'untrusted' });
    expect(states({ TENON_PLUGINS: 'b-stats, c-stats,./node_modules/d-stats' })).toEqual({
      'a-stats': 'untrusted',
      'b-stats': 'ok',
      'c-stats': 'ok',
      'd-stats': 'ok',
    });
    expect(() => findExtension('statLoggers', 'a-stats', list([], { TENON_PLUGINS: '' }))).toThrow(
      "stat logger 'a-stats' of a-stats: its code may not run; to allow it, add a-stats to TENON_PLUGINS",
    );
  });
});

describe('loadExtension', () => {
  beforeEach(() => dependOn('stats'));

  it('gives the default export of the module, wherever the package was named', async () => {
    addPackage('stats', csv, 'export default { create: () => "made" };');
    const loaded = await loadExtension('statLoggers', 'csv', list());
    expect(loaded.create({ argument: undefined })).toBe('made');
  });

  it('names what there is instead of what there is not', async () => {
    addPackage('stats', { statLoggers: [{ name: 'csv', entry: './index.js' }, { name: 'broken' }] });
    await expect(async () => loadExtension('statLoggers', 'cvs', list())).rejects.toMatchObject({
      code: 'config.extension-not-found',
      message:
        "no stat logger 'cvs'; found: csv (stats), broken (stats: incompatible, tenon.statLoggers[1].entry is missing); " +
        'install a package whose tenon.statLoggers has this name, or name its folder with --plugin',
    });
  });

  it.each([
    ['throw new Error("no driver");', 'its entry failed to load: no driver'],
    ['export default 3;', 'has no function create'],
    ['export const create = 3;', 'has no function create'],
    ['export default { create: 3 };', 'has no function create'],
  ])('refuses the module %j', async (code, reason) => {
    addPackage('stats', csv, code);
    const error = await loadExtension('statLoggers', 'csv', list()).catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code: 'config.extension-invalid' });
    expect((error as Error).message).toContain("stat logger 'csv' of stats: ");
    expect((error as Error).message).toContain(reason);
  });
});
