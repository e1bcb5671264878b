import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { discoverBackends } from './discover.js';

let app: string;
beforeEach(() => {
  app = mkdtempSync(join(tmpdir(), 'tenon-discover-'));
});
afterEach(() => rmSync(app, { recursive: true }));

function write(path: string, content: string | object): void {
  mkdirSync(join(app, path, '..'), { recursive: true });
  writeFileSync(join(app, path), typeof content === 'string' ? content : JSON.stringify(content));
}

const dependOn = (...names: string[]): void =>
  write('package.json', { dependencies: Object.fromEntries(names.map((name) => [name, '1'])) });

/** A package whose code must not run. */
function addPackage(name: string, id: string = name, folder = `node_modules/${name}`): void {
  const tenon = { backend: { id, entry: './index.js', api: '^1.0' } };
  write(`${folder}/package.json`, {
    name,
    version: '1.2.3',
    tenon,
    peerDependencies: { '@tenon/core': '<9' },
  });
  write(`${folder}/index.js`, 'throw new Error("not to be run");');
}

function discover(plugins: readonly string[] = [], env: Readonly<Record<string, string>> = {}) {
  const all = discoverBackends({ plugins, root: app, env: { XDG_CONFIG_HOME: join(app, 'config'), ...env } });
  return all.filter(({ source }) => source !== 'first-party');
}
const states = (...args: Parameters<typeof discover>) =>
  discover(...args).map(({ name, source, refusal }) => [name, source, refusal?.state ?? 'ready']);

describe('discoverBackends', () => {
  it("reads the manifests of the application's direct dependencies, and no other package's", () => {
    write('package.json', { dependencies: { toy: '1', lodash: '4' }, optionalDependencies: { maybe: '1' } });
    for (const name of ['toy', 'maybe', 'stray']) addPackage(name);
    write('node_modules/lodash/package.json', { name: 'lodash', version: '4.0.0' });
    expect(states()).toEqual([
      ['toy', 'dependency', 'ready'],
      ['maybe', 'dependency', 'ready'],
    ]);
    expect(discover()[0]).toMatchObject({ id: 'toy', version: '1.2.3', manifest: { id: 'toy' } });
  });

  it('leaves packages with extensions alone, and reports those with a field that means nothing', () => {
    dependOn('stats', 'typo');
    const statLoggers = [{ name: 'csv', entry: './index.js' }];
    write('node_modules/stats/package.json', { name: 'stats', tenon: { statLoggers } });
    write('node_modules/typo/package.json', { name: 'typo', tenon: { statLogger: statLoggers } });
    expect(states(['stats'])).toEqual([['typo', 'dependency', 'incompatible']]);
    expect(discover()[0]!.refusal!.reason).toMatch(
      /^tenon has statLogger; expected one of backend, models, /,
    );
  });

  it('looks from a folder below the application, too', () => {
    dependOn('toy');
    addPackage('toy');
    mkdirSync(join(app, 'src/deep'), { recursive: true });
    const found = discoverBackends({ plugins: [], root: join(app, 'src/deep'), env: {} });
    expect(found.map(({ name }) => name)).toContain('toy');
  });

  it('finds packages of ours without being told, and trusts them', () => {
    dependOn();
    addPackage('@tenon/backend-cuda', 'cuda');
    for (const env of [{}, { TENON_PLUGINS: '' }]) {
      const found = discoverBackends({ plugins: [], root: app, env });
      expect(found.find(({ id }) => id === 'cuda')).toMatchObject({
        source: 'first-party',
        refusal: undefined,
      });
    }
  });

  it('trusts no package that only looks like one of ours', () => {
    dependOn('@tenon-like/backend');
    addPackage('@tenon-like/backend', 'like');
    addPackage('evil', 'evil');
    mkdirSync(join(app, 'node_modules/@tenon'), { recursive: true });
    write('config/tenon/plugins.json', { plugins: ['@tenon/../evil'] });
    expect(states([], { TENON_PLUGINS: '' })).toEqual([
      ['@tenon-like/backend', 'dependency', 'untrusted'],
      ['evil', 'registry', 'untrusted'],
    ]);
  });

  it('puts what the user names first, and finds each package once', () => {
    dependOn('toy');
    for (const name of ['toy', 'other']) addPackage(name);
    addPackage('local', 'local', 'vendor/local');
    symlinkSync(join(app, 'vendor/local'), join(app, 'node_modules/linked'));
    const plugins = ['./vendor/local', 'other', 'toy', 'linked', join(app, 'vendor/local')];
    expect(states(plugins)).toEqual([
      ['local', 'option', 'ready'],
      ['other', 'option', 'ready'],
      ['toy', 'option', 'ready'],
    ]);
  });

  it('trusts direct dependencies until TENON_PLUGINS says who may run', () => {
    dependOn('a', 'b');
    for (const name of ['a', 'b', 'c']) addPackage(name);
    addPackage('d', 'd', 'vendor/d');
    expect(states([], { TENON_PLUGINS: 'b, c,./vendor/d' })).toEqual([
      ['a', 'dependency', 'untrusted'],
      ['b', 'dependency', 'ready'],
      ['c', 'TENON_PLUGINS', 'ready'],
      ['d', 'TENON_PLUGINS', 'ready'],
    ]);
    expect(states(['a'], { TENON_PLUGINS: '' })).toEqual([
      ['a', 'option', 'ready'],
      ['b', 'dependency', 'untrusted'],
    ]);
    expect(discover([], { TENON_PLUGINS: 'b' })[0]!.refusal).toEqual({
      state: 'untrusted',
      reason: 'its code may not run',
      remedy: 'to allow it, add a to TENON_PLUGINS',
    });
  });

  it("reads the user's registry file, whose packages run only if they are allowed", () => {
    dependOn('a');
    for (const name of ['a', 'b']) addPackage(name);
    addPackage('c', 'c', 'config/tenon/c');
    write('config/tenon/plugins.json', { plugins: ['b', './c'] });
    const found = (b: string, c: string) => [
      ['a', 'dependency', 'ready'],
      ['b', 'registry', b],
      ['c', 'registry', c],
    ];
    expect(states()).toEqual(found('untrusted', 'untrusted'));
    expect(states([], { TENON_PLUGINS: 'a,b' })).toEqual(found('ready', 'untrusted'));
    expect(states([], { TENON_PLUGINS: 'a,c' })).toEqual(found('untrusted', 'ready'));
    expect(states([], { TENON_PLUGINS: 'a,./config/tenon/c' })).toEqual(found('untrusted', 'ready'));
  });

  it('reads the registry file of the home folder where no other is named', () => {
    dependOn();
    addPackage('a', 'a', '.config/tenon/a');
    write('.config/tenon/plugins.json', { plugins: ['./a'] });
    const found = discoverBackends({ plugins: [], root: app, env: { HOME: app } });
    expect(found.map(({ name }) => name)).toContain('a');
  });

  it('lets the first of two with one id count, and says so of the other', () => {
    dependOn('a', 'b');
    for (const name of ['a', 'b']) addPackage(name, 'npu');
    expect(states()).toEqual([
      ['a', 'dependency', 'ready'],
      ['b', 'dependency', 'ignored'],
    ]);
    expect(discover()[1]!.refusal).toMatchObject({
      reason: "a (dependency) has the id 'npu' too and comes first",
      remedy: 'to use this one, name it with --plugin b; else remove one of the two',
    });
    expect(states(['b'])).toEqual([
      ['b', 'option', 'ready'],
      ['a', 'dependency', 'ignored'],
    ]);
    // What may not run takes no id away.
    expect(states([], { TENON_PLUGINS: 'b' })).toEqual([
      ['a', 'dependency', 'untrusted'],
      ['b', 'dependency', 'ready'],
    ]);
  });

  it('keeps what it cannot use, with all reasons', () => {
    dependOn('odd', 'odder');
    addPackage('odd', 'Not An Id');
    write('node_modules/odder/package.json', { name: 'odder', version: '1', tenon: 'backend' });
    const [odd, odder] = discover();
    expect(odd).toMatchObject({ manifest: undefined, id: undefined, refusal: { state: 'incompatible' } });
    expect(odd!.refusal!.reason).toContain('tenon.backend.id is "Not An Id"');
    expect(odder!.refusal!.reason).toBe('tenon is "backend"; expected an object');
  });

  it.each([
    ['lost', "no package 'lost' is installed for <app>; install it, or mend --plugin; the path of a folder begins with ./ or /"],
    ['./lost', 'there is no <app>/lost/package.json; install it, or mend --plugin; the path of a folder begins with ./ or /'],
    ['plain', "<app>/node_modules/plain/package.json has no field 'tenon'; name a package that holds a plugin"],
    ['broken', '<app>/node_modules/broken/package.json is no JSON object; name a package that holds a plugin'],
  ])('says that %s is no plugin', (name, problem) => {
    dependOn();
    write('node_modules/plain/package.json', { name: 'plain' });
    write('node_modules/broken/package.json', '{');
    for (const [plugins, env] of [[[name], {}], [[], { TENON_PLUGINS: name }]] as const) {
      const [{ refusal }] = discover(plugins, env) as [ReturnType<typeof discover>[0]];
      const text = `${refusal?.reason}; ${refusal?.remedy}`.replaceAll(app, '<app>');
      expect(text.replace('TENON_PLUGINS', '--plugin')).toBe(problem);
      expect(refusal?.state).toBe('incompatible');
    }
  }); // prettier-ignore

  it.each(['{', '[]', '{ "plugins": "a" }', '{ "plugins": [3] }'])('says that the registry %j is broken', (text) => {
    dependOn();
    write('config/tenon/plugins.json', text);
    expect(discover()).toMatchObject([
      {
        name: join(app, 'config/tenon/plugins.json'),
        source: 'registry',
        refusal: { state: 'incompatible', reason: 'it does not hold { "plugins": ["<package or folder>"] }' },
      },
    ]);
  }); // prettier-ignore

  it('takes little time in an application with 300 dependencies', () => {
    const names = Array.from({ length: 300 }, (_, i) => `dependency-${i}`);
    dependOn(...names, 'toy');
    const scripts = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`script-${i}`, 'x'.repeat(40)]));
    for (const name of names) write(`node_modules/${name}/package.json`, { name, version: '1.0.0', scripts });
    addPackage('toy');
    discover();
    const startMs = performance.now();
    expect(states()).toEqual([['toy', 'dependency', 'ready']]);
    // 50 ms on a machine of its own (bench/install-cost.mjs); others run beside this test.
    expect(performance.now() - startMs).toBeLessThan(250);
  });
});
