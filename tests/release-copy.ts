/** A copy of this repository's built packages in which `changeset version` has written the versions of the next release. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = fileURLToPath(new URL('..', import.meta.url));

/** What a release is made of: sources and builds, but no installed packages and no intermediate files of builds. */
const isReleased = (path: string) =>
  !/\/(node_modules|\.turbo|packed)(\/|$)/.test(path) && !/\/native\/build\/(?!Release(\/|$))/.test(path);

export function copyForRelease(folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const name of ['package.json', '.changeset', 'scripts', 'packages'])
    cpSync(join(repository, name), join(folder, name), { recursive: true, filter: isReleased });
  symlinkSync(join(repository, 'node_modules'), join(folder, 'node_modules'));
  execFileSync(process.execPath, [join(repository, 'node_modules/@changesets/cli/bin.js'), 'version'], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}
