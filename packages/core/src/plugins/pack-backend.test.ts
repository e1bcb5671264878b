import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

import { packBackend } from './pack-backend.js';

const platform = `${process.platform}-${process.arch}`;
const manifest = {
  name: '@example/backend-toy',
  version: '1.2.3',
  license: 'MIT',
  files: ['dist', 'native', '!native/build'],
  scripts: { prepack: 'exit 1' },
  optionalDependencies: { other: '^1' },
  tenon: {
    backend: { id: 'toy', entry: './dist/index.js', api: '^1.0', platforms: [platform, 'plan9-mips'] },
  },
};

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tenon-pack-backend-'));
  write('package.json', JSON.stringify(manifest));
  write('dist/index.js', 'export default 1;');
  write('LICENSE', 'MIT');
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(path: string, content: string): void {
  mkdirSync(join(folder, path, '..'), { recursive: true });
  writeFileSync(join(folder, path), content);
}

const pack = () => packBackend(folder, join(folder, 'packed'));
const tar = (...args: string[]) => execFileSync('tar', args, { encoding: 'utf8' });
const filesIn = (tarball: string) => tar('tzf', tarball).trim().split('\n').toSorted();
const manifestIn = (tarball: string) => JSON.parse(tar('xzOf', tarball, 'package/package.json'));

it('makes a package of the addon for this platform, and one that asks for those of all platforms', () => {
  write('native/kernel.cpp', '');
  write('native/build/Release/toy.node', 'addon');
  const [addon, main] = pack();
  expect([addon, main].map((path) => basename(path!))).toEqual([
    `example-backend-toy-${platform}-1.2.3.tgz`,
    'example-backend-toy-1.2.3.tgz',
  ]);
  expect(filesIn(addon!)).toEqual(['package/LICENSE', 'package/package.json', 'package/toy.node']);
  expect(manifestIn(addon!)).toMatchObject({
    name: `@example/backend-toy-${platform}`,
    version: '1.2.3',
    license: 'MIT',
    os: [process.platform],
    cpu: [process.arch],
  });
  expect(filesIn(main!)).toEqual([
    'package/LICENSE',
    'package/dist/index.js',
    'package/native/kernel.cpp',
    'package/package.json',
  ]);
  expect(manifestIn(main!).optionalDependencies).toEqual({
    other: '^1',
    [`@example/backend-toy-${platform}`]: '1.2.3',
    '@example/backend-toy-plan9-mips': '1.2.3',
  });
});

it('packs a backend without native code as it is', () => {
  const tarballs = pack();
  expect(tarballs.map((path) => basename(path))).toEqual(['example-backend-toy-1.2.3.tgz']);
  expect(manifestIn(tarballs[0]!)).toEqual(manifest);
});

it("lets the package's own script have the last word", () => {
  const scripts = (check: string) => ({ ...manifest, scripts: { 'check:pack': check } });
  write('package.json', JSON.stringify(scripts('echo half of it is missing >&2; exit 1')));
  expect(pack).toThrow(/cannot be packed: its script check:pack failed: half of it is missing$/);
  write('package.json', JSON.stringify(scripts('exit 0')));
  expect(pack()).toHaveLength(1);
});

it('says what is missing', () => {
  write('native/kernel.cpp', '');
  expect(pack).toThrow('native/build/Release has 0 addons (*.node); expected 1: build it with npm run build');
  write('native/build/Release/toy.node', 'addon');
  write('package.json', JSON.stringify({ ...manifest, tenon: { backend: { platforms: ['plan9-mips'] } } }));
  expect(pack).toThrow(`tenon.backend.platforms is ["plan9-mips"], without ${platform}`);
  write('package.json', JSON.stringify({ ...manifest, version: '' }));
  expect(pack).toThrow(/cannot be packed: npm pack .* failed: .*must have name and version/s);
  write('package.json', JSON.stringify({ ...manifest, tenon: undefined }));
  expect(pack).toThrow('its package.json has no tenon.backend');
});
