/**
 * The way from this repository to a stranger's application: packages get their versions, are packed, published to a registry, and
 * installed from there by name, by npm and by pnpm. First-party backends go through it as any other does (backends-guide.test.ts).
 */
import { existsSync, mkdtempSync, readFileSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
// @ts-expect-error: plain JavaScript, a program too
import { emptyApp, installed, limits } from '../bench/install-cost.mjs';
import { startReleasedRegistry, type ReleasedRegistry } from './released-registry.js';
import { serve } from './serve-process.js';

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'tenon-registry-')));
const pnpm = fileURLToPath(new URL('../node_modules/pnpm/bin/pnpm.cjs', import.meta.url));
let registry: ReleasedRegistry;

beforeAll(async () => {
  registry = await startReleasedRegistry(folder);
});
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const makeApp = (name: string): string => emptyApp(join(folder, name));

it('publishes every package once, a backend after its addon', () => {
  const { release, released, run } = registry;
  const versionOf = (name: string): string =>
    JSON.parse(readFileSync(join(release, 'packages', name, 'package.json'), 'utf8')).version;
  const line = (name: string, of = name) => `published: @tenon/${name}@${versionOf(of)}`;
  const addonOf = (backend: string) => line(`${backend}-${process.platform}-${process.arch}`, backend);
  const backends = ['backend-cpu', ...(registry.hasCuda ? ['backend-cuda'] : [])];
  expect(released).toEqual(expect.arrayContaining([line('core'), line('model-stories')]));
  expect(released.slice(-2 * backends.length)).toEqual(
    backends.flatMap((name) => [addonOf(name), line(name)]),
  );
  const again = run(release, process.execPath, 'scripts/release.mjs').trim().split('\n');
  expect(again).toEqual(released.map((said) => said.replace('published', 'already published')));
});

it('costs little: core alone', () => {
  const app = makeApp('core');
  registry.run(app, 'npm', 'install', '@tenon/core');
  const { megabytes, packages } = installed(join(app, 'node_modules'));
  expect(megabytes).toBeLessThanOrEqual(limits.coreMegabytes);
  expect(packages).toBeLessThanOrEqual(limits.corePackages);
});

// On a machine without an NVIDIA driver, as most that install it by mistake are.
describe.skipIf(existsSync('/proc/driver/nvidia'))('an application with the CUDA backend', () => {
  const doctor = (app: string) => () => registry.run(app, 'npx', '--no-install', 'tenon', 'doctor');

  it('is told what to install where there is no native part for its platform', () => {
    const folderOfCuda = join(registry.release, 'packages/backend-cuda');
    const tarball = registry.run(folderOfCuda, 'npm', 'pack', '--ignore-scripts').trim();
    const app = makeApp('cuda-without-addon');
    registry.run(app, 'npm', 'install', '@tenon/core', join(folderOfCuda, tarball));
    expect(doctor(app)).toThrow(
      /tenon_cuda\.node does not exist, and @tenon\/backend-cuda-\S+ is not installed; install @tenon\/backend-cuda-\S+, or build it/,
    );
  });

  it('installs by name, and says that there is no driver', ({ skip }) => {
    skip(
      !registry.hasCuda,
      'its native part is not built: npm run build:native --workspace @tenon/backend-cuda',
    );
    const app = makeApp('cuda');
    registry.run(app, 'npm', 'install', '@tenon/core', '@tenon/backend-cuda');
    expect(doctor(app)).toThrow(/there is no NVIDIA driver: .*\n +remedy: install the NVIDIA driver/);
    const addon = `node_modules/@tenon/backend-cuda-${process.platform}-${process.arch}/tenon_cuda.node`;
    expect(statSync(join(app, addon)).size).toBeLessThan(150e6);
  });
});

describe.each([
  { manager: 'npm', install: ['npm', 'install'], execute: ['npx', '--no-install'] },
  {
    manager: 'pnpm',
    install: [process.execPath, pnpm, 'add', '--store-dir', join(folder, 'store')],
    execute: [process.execPath, pnpm, 'exec'],
  },
])('an application that $manager installs', ({ manager, install, execute }) => {
  let app: string;
  const tenon = (...args: string[]) => registry.run(app, execute[0]!, ...execute.slice(1), 'tenon', ...args);

  it('gets the packages by name, with an addon that nobody had to compile', () => {
    app = makeApp(manager);
    const [command, ...args] = install as [string, ...string[]];
    registry.run(app, command, ...args, '@tenon/core', '@tenon/backend-cpu', '@tenon/model-stories');
    const backend = realpathSync(join(app, 'node_modules/@tenon/backend-cpu'));
    expect(existsSync(join(backend, 'native/build'))).toBe(false);
    expect(existsSync(join(app, 'node_modules/cmake-js'))).toBe(false);
  });

  it('finds the device, and no other package has to be named', () => {
    expect(tenon('devices')).toContain('cpu:0');
  });

  // pnpm has a second link to it.
  it.runIf(manager === 'npm')('says what to do where the addon is missing', () => {
    const addon = `${realpathSync(join(app, 'node_modules/@tenon/backend-cpu'))}-${process.platform}-${process.arch}`;
    renameSync(addon, `${addon}-away`);
    expect(() => tenon('doctor')).toThrow(
      /backend-cpu-\S+ is not installed; install @tenon\/backend-cpu-\S+, or build it/,
    );
    renameSync(`${addon}-away`, addon);
  });

  it('serves a model to a client', async () => {
    await using server = await serve([], registry.environment, app);
    const answer = tenon(
      'complete',
      '--url',
      `${server.url}/v1`,
      '-q',
      'Once upon a time',
      '--max-tokens',
      '8',
    );
    expect(answer.trim().split(/\s+/).length).toBeGreaterThan(4);
  });
});
