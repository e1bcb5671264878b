import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readManifest, type Target } from './manifest.js';

let folder: string;
beforeEach(() => {
  const parent = mkdtempSync(join(tmpdir(), 'tenon-manifest-'));
  folder = join(parent, 'package');
  mkdirSync(join(folder, 'dist'), { recursive: true });
  writeFileSync(join(folder, 'dist/index.js'), '');
  writeFileSync(join(parent, 'other.js'), '');
  symlinkSync('../other.js', join(folder, 'out.js'));
  symlinkSync('dist/index.js', join(folder, 'in.js'));
});
afterEach(() => rmSync(join(folder, '..'), { recursive: true }));

const target: Target = { core: '0.3.1', api: { major: 1, minor: 2 }, platform: 'linux-x64' };
const good = { id: 'toy', entry: './dist/index.js', api: '^1.0' };

function read(
  backend: unknown,
  peers: unknown = { '@tenon/core': '^0.3.0' },
): ReturnType<typeof readManifest> {
  const packageJson = {
    name: 'toy-backend',
    version: '1.2.3',
    tenon: { backend },
    ...(peers === undefined ? {} : { peerDependencies: peers }),
  };
  return readManifest(folder, packageJson, target);
}

function problemsOf(backend: unknown, peers?: unknown): string[] {
  const reading = read(backend, peers);
  if (reading === undefined || !('problems' in reading)) throw new Error('nothing is wrong');
  return reading.problems.map(({ reason, remedy }) => `${reason.replaceAll(folder, '<folder>')}; ${remedy}`);
}

describe('readManifest', () => {
  it('takes a manifest that is right, and completes it', () => {
    const match = [{ class: 'npu', pci: ['1DA3:*', '1da3:1020'] }, { class: 'cpu' }];
    const platforms = ['linux-arm64', 'linux-x64'];
    expect(read({ ...good, match, platforms, conformance: './conformance.json' })).toEqual({
      manifest: {
        packageName: 'toy-backend',
        packageVersion: '1.2.3',
        folder,
        id: 'toy',
        entry: join(folder, 'dist/index.js'),
        api: '^1.0',
        match: [
          { class: 'npu', pci: ['1da3:*', '1da3:1020'] },
          { class: 'cpu', pci: [] },
        ],
        conformance: join(folder, 'conformance.json'),
      },
    });
    expect(read({ ...good, entry: 'in.js' })).toHaveProperty('manifest');
    for (const range of ['>=0.2.0 <2.0.0', '0.3.x', '^0.2.0 || ^0.3.0'])
      expect(read(good, { '@tenon/core': range })).toHaveProperty('manifest');
  });

  it('knows packages without a backend', () => {
    expect(readManifest(folder, { name: 'lodash' }, target)).toBeUndefined();
    expect(readManifest(folder, { name: 'lodash', tenon: { models: [] } }, target)).toBeUndefined();
  });

  const mend = "mend the package's package.json, or install another version of it";
  const idRule = 'expected a lower-case word of letters, digits and -, other than auto';
  const pathRule = 'expected a path such as ./dist/index.js';
  const apiRule = 'expected a range of backend api versions such as ^1.0';
  const matchRule =
    'expected a list of { "class": gpu | npu | tpu | other | cpu, "pci": ["<vendor>:<device or *>"] }';

  it.each<[object, string]>([
    [{ id: undefined }, `tenon.backend.id is missing; expected a lower-case word such as npu; ${mend}`],
    [{ id: 7 }, `tenon.backend.id is 7; ${idRule}; ${mend}`],
    [{ id: 'My NPU' }, `tenon.backend.id is "My NPU"; ${idRule}; ${mend}`],
    [{ id: 'npu:0' }, `tenon.backend.id is "npu:0"; ${idRule}; ${mend}`],
    [{ id: 'auto' }, `tenon.backend.id is "auto"; ${idRule}; ${mend}`],
    [{ entry: undefined }, `tenon.backend.entry is missing; ${pathRule}; ${mend}`],
    [{ entry: ['./dist/index.js'] }, `tenon.backend.entry is ["./dist/index.js"]; ${pathRule}; ${mend}`],
    [{ entry: '' }, `tenon.backend.entry is ""; ${pathRule}; ${mend}`],
    [
      { entry: '/usr/lib/evil.js' },
      `tenon.backend.entry is "/usr/lib/evil.js", an absolute path; expected one relative to the package; ${mend}`,
    ],
    [
      { entry: 'file:///evil.js' },
      `tenon.backend.entry is "file:///evil.js", an absolute path; expected one relative to the package; ${mend}`,
    ],
    [
      { entry: './dist/../../other.js' },
      `tenon.backend.entry is "./dist/../../other.js", which leaves the package; expected a path inside it; ${mend}`,
    ],
    [
      { entry: './out.js' },
      `tenon.backend.entry is "./out.js", a link that leaves the package, to <other>; expected a file inside it; ${mend}`,
    ],
    [
      { entry: './dist/lost.js' },
      'tenon.backend.entry is "./dist/lost.js", but <folder>/dist/lost.js does not exist; build or reinstall the package',
    ],
    [
      { entry: './dist' },
      `tenon.backend.entry is "./dist", which is a folder; expected a module's file; ${mend}`,
    ],
    [{ api: undefined }, `tenon.backend.api is missing; ${apiRule}; ${mend}`],
    [{ api: 1 }, `tenon.backend.api is 1; ${apiRule}; ${mend}`],
    [{ api: 'newest' }, `tenon.backend.api is "newest"; ${apiRule}; ${mend}`],
    [{ api: '*' }, `tenon.backend.api is "*"; ${apiRule}; ${mend}`],
    [{ api: '^1.3' }, 'it needs backend api ^1.3, and this is 1.2; install a newer @tenon/core than 0.3.1'],
    [{ api: '^0.9' }, 'it needs backend api ^0.9, and this is 1.2; install a newer version of the package'],
    [
      { platforms: 'linux-x64' },
      `tenon.backend.platforms is "linux-x64"; expected a list of platforms such as linux-x64; ${mend}`,
    ],
    [
      { platforms: ['linux'] },
      `tenon.backend.platforms is ["linux"]; expected a list of platforms such as linux-x64; ${mend}`,
    ],
    [
      { platforms: ['linux-arm64', 'darwin-arm64'] },
      'it is for linux-arm64, darwin-arm64, and this is linux-x64; use a machine of that kind, or a version of the package for this one',
    ],
    [{ match: { class: 'npu' } }, `tenon.backend.match is {"class":"npu"}; ${matchRule}; ${mend}`],
    [{ match: [{ class: 'fpga' }] }, `tenon.backend.match is [{"class":"fpga"}]; ${matchRule}; ${mend}`],
    [
      { match: [{ class: 'npu', pci: ['1da3'] }] },
      `tenon.backend.match is [{"class":"npu","pci":["1da3"]}]; ${matchRule}; ${mend}`,
    ],
    [{ conformance: 5 }, `tenon.backend.conformance is 5; ${pathRule}; ${mend}`],
    [
      { conformance: '../../../etc/passwd' },
      `tenon.backend.conformance is "../../../etc/passwd", which leaves the package; expected a path inside it; ${mend}`,
    ],
  ])('says what is wrong about %j', (fields, problem) => {
    const expected = problem.replace('<other>', join(folder, '../other.js'));
    expect(problemsOf({ ...good, ...fields })).toEqual([expected]);
  });

  const peer = 'peerDependencies["@tenon/core"]';
  const peerRule = 'expected a range such as ^0.3.1';

  it.each<[unknown, string]>([
    [undefined, `${peer} is missing; ${peerRule}; ${mend}`],
    [{ '@tenon/core': 3 }, `${peer} is 3; ${peerRule}; ${mend}`],
    [{ '@tenon/core': 'workspace:^' }, `${peer} is "workspace:^"; ${peerRule}; ${mend}`],
    [
      { '@tenon/core': '*' },
      `${peer} is "*", which names no version that it was made for; ${peerRule}; ${mend}`,
    ],
    [
      { '@tenon/core': '^0.2.0' },
      'it is for @tenon/core ^0.2.0, and this is 0.3.1; ' +
        'install a version of the package for @tenon/core 0.3.1, or a version of @tenon/core in that range',
    ],
  ])('says what is wrong about the peer dependencies %j', (peers, problem) => {
    expect(problemsOf(good, peers ?? {})).toEqual([problem]);
  });

  it('says all that is wrong at once', () => {
    expect(problemsOf({ id: 'Toy', entry: '/x', api: '^9.0', platforms: ['win32-x64'] }, {})).toHaveLength(5);
    expect(problemsOf('./dist/index.js')).toEqual([
      `tenon.backend is "./dist/index.js"; expected an object with id, entry and api; ${mend}`,
    ]);
  });
});
