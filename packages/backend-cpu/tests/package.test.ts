/** What an application that installs the package meets: a build that downloads nothing, and an error that names its command. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { nativeBackend } from '../../core/src/backend/index.js';

const packageFolder = fileURLToPath(new URL('..', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'tenon-home-'));
afterAll(() => rmSync(home, { recursive: true }));

it('names the command that builds the addon where it is not built, and what is no addon', () => {
  const packageJson = join(home, 'package.json');
  copyFileSync(join(packageFolder, 'package.json'), packageJson);
  const module = nativeBackend({
    id: 'cpu',
    owner: 'tenon',
    addon: 'tenon_cpu',
    packageJson: pathToFileURL(packageJson),
  });
  const failure = (text: string) =>
    expect.objectContaining({ code: 'backend.load-failed', message: expect.stringContaining(text) });
  expect(() => module.create({ log() {} })).toThrow(
    failure('npm explore @tenon/backend-cpu -- npm run build:native'),
  );
  mkdirSync(join(home, 'native/build/Release'), { recursive: true });
  writeFileSync(join(home, 'native/build/Release/tenon_cpu.node'), 'text');
  expect(() => module.create({ log() {} })).toThrow(failure('cannot be loaded'));
  const { scripts } = JSON.parse(readFileSync(join(packageFolder, 'package.json'), 'utf8'));
  expect(scripts['build:native']).toMatch(/^cmake-js compile --directory native /);
});

// Without `binary.napi_versions` beside CMakeLists.txt, cmake-js fetches the headers of Node itself from the internet, unless
// npm is configured with a nodedir, which this environment leaves out.
it('builds with the headers that npm installed', () => {
  const cmakeJs = join(
    dirname(createRequire(import.meta.url).resolve('cmake-js/package.json')),
    'bin/cmake-js',
  );
  const printed = execFileSync(process.execPath, [cmakeJs, 'print-configure', '--directory', 'native'], {
    cwd: packageFolder,
    env: { PATH: process.env['PATH'], HOME: home },
    encoding: 'utf8',
  });
  expect(printed).toMatch(/-DCMAKE_JS_INC=\S*node-api-headers/);
  expect(printed).not.toContain(home);
});
