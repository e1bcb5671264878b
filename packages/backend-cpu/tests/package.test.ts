/** What an application that installs the package meets: a build that downloads nothing, and an error that names its command. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { loadBinding } from '../src/load-binding.js';

const packageFolder = fileURLToPath(new URL('..', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'tenon-home-'));
afterAll(() => rmSync(home, { recursive: true }));

it('names the command that builds the addon where it is not built', () => {
  expect(() => loadBinding(join(home, 'tenon_cpu.node'))).toThrow(
    expect.objectContaining({
      code: 'backend.load-failed',
      message: expect.stringContaining('npm explore @tenon/backend-cpu -- npm run build:native'),
    }),
  );
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
