/** The package: what it says of itself, what a checkout without nvcc gets, and what is refused to be packed. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import module from '../src/index.js';
import { readManifest } from '../../core/src/plugins/manifest.js';
import { packBackend } from '../../core/src/plugins/pack-backend.js';
import { addon, isBuilt } from './built.js';

const folder = resolve(fileURLToPath(new URL('..', import.meta.url)));
const scratch = mkdtempSync(join(tmpdir(), 'tenon-cuda-package-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const withoutGpu = { LD_LIBRARY_PATH: '', CUDA_VISIBLE_DEVICES: '' };
const node = (args: readonly string[], env: Record<string, string>) =>
  spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8', env: { ...process.env, ...env } });

it('has a manifest that core accepts, and names the hardware it is for', () => {
  expect(readManifest(folder)).toMatchObject({
    manifest: { id: 'cuda', packageName: '@tenon/backend-cuda', match: [{ class: 'gpu', pci: ['10de:*'] }] },
  });
});

it.runIf(!isBuilt)('says how to get its native part where it is not built', () => {
  const message = /@tenon\/backend-cuda-\S+ is not installed; install @tenon\/backend-cuda-\S+, or build it/;
  expect(() => module.create({ log() {} })).toThrow(message);
  expect(() => packBackend(folder, scratch)).toThrow(/has 0 addons \(\*\.node\); expected 1/);
});

describe('the build of a checkout', () => {
  const program = (name: string, prints: string): string => {
    const path = join(scratch, name);
    writeFileSync(path, `#!/bin/sh\necho "${prints}"\n`, { mode: 0o755 });
    return path;
  };
  const build = (CUDACXX: string) =>
    node(['native/build-here.mjs'], { CUDACXX, PATH: `${scratch}:${process.env['PATH']}` });

  it('is skipped with one line where there is no GPU, no nvcc, or an old one', () => {
    const old = program('nvcc', 'Cuda compilation tools, release 12.4, V12.4.131');
    program('nvidia-smi', 'No devices were found');
    const { status, stdout, stderr } = build(old);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(
      /^tenon: no NVIDIA GPU here; the native part of @tenon\/backend-cuda is not built: .*\n$/,
    );
    program('nvidia-smi', '9.0');
    expect(build('/no/nvcc').stdout).toMatch(
      /^tenon: no nvcc found; the native part of @tenon\/backend-cuda is not built: .*\n$/,
    );
    expect(build(old).stdout).toMatch(/^tenon: nvcc 12\.4 found; .* it needs nvcc 13\.0 or newer/);
  });
});

describe.runIf(isBuilt)('the native part', () => {
  it('loads without a GPU, and says what it was built with', () => {
    const script = `console.log(JSON.stringify(require(${JSON.stringify(addon)}).info().runtime))`;
    const { stdout } = node(['-e', script], withoutGpu);
    expect(JSON.parse(stdout)).toMatchObject({ cuda: expect.stringMatching(/^\d+\.\d$/), driver: expect.stringMatching(/^none$|^\d+\.\d$/), code: expect.stringMatching(/^(sm|compute)_/) }); // prettier-ignore
  });

  it('shows other addons nothing but the entry points of Node-API', () => {
    const { stdout } = spawnSync('nm', ['-D', '--defined-only', addon], { encoding: 'utf8' });
    const names = stdout.trim().split('\n').map((line) => line.split(' ').at(-1)); // prettier-ignore
    expect(names.toSorted()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });

  it('needs no library that comes with a driver or with CUDA', () => {
    const { stdout } = spawnSync('readelf', ['-d', addon], { encoding: 'utf8' });
    const needed = [...stdout.matchAll(/NEEDED.*\[(.*)\]/g)].map(([, name]) => name!);
    expect(needed.length).toBeGreaterThan(0);
    for (const name of needed)
      expect(name).toMatch(/^(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux-x86-64)\.so/);
  });

  it('is packed only with code for all GPUs that are promised', () => {
    const { runtime } = JSON.parse(node(['-p', `JSON.stringify(require(${JSON.stringify(addon)}).info())`], withoutGpu).stdout); // prettier-ignore
    const isWhole = ['sm_80', 'sm_86', 'sm_89', 'sm_90a', 'compute_90', 'sm_100', 'sm_120'].every((name) => runtime.code.split(' ').includes(name)); // prettier-ignore
    const { status, stderr } = node(['native/check-pack.mjs'], withoutGpu);
    if (isWhole) expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    else expect(stderr).toMatch(/^it was built for .* alone, without .*; run npm run build:native$/m);
    expect(status).toBe(isWhole ? 0 : 1);
  });
});
