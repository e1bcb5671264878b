// Packs every package of the workspace, and publishes what the registry does not have yet, in an order in which nothing can be installed
// without what it needs: other packages, then for each backend its built addon and itself. Versions are those that `changeset version`
// has written; the registry and the token are npm's (docs/publishing.md).
//   node scripts/release.mjs [--dry-run]
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const out = join(root, 'packed');
const tenon = join(root, 'packages/core/bin/tenon.js');
const isDryRun = process.argv.includes('--dry-run');

const readPackage = (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
const isBackend = ({ tenon }) => tenon?.backend !== undefined;

/** Folders of the packages to publish, backends last. */
function publishedFolders() {
  const folders = readdirSync(join(root, 'packages')).map((name) => join(root, 'packages', name));
  const published = folders.filter(
    (folder) => existsSync(join(folder, 'package.json')) && !readPackage(folder).private,
  );
  const backends = published.filter((folder) => isBackend(readPackage(folder)));
  return [...published.filter((folder) => !backends.includes(folder)), ...backends];
}

/** Tarballs of one package, in publishing order. */
function pack(folder) {
  const before = new Set(readdirSync(out));
  if (!isBackend(readPackage(folder))) {
    execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', out], { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] }); // prettier-ignore
    return readdirSync(out).filter((file) => !before.has(file));
  }
  const printed = execFileSync(process.execPath, [tenon, 'plugin', 'pack', folder, '--out', out], {
    cwd: out,
    encoding: 'utf8',
  });
  return printed
    .trim()
    .split('\n')
    .map((line) => line.split(/\s/)[0]);
}

const manifestIn = (tarball) =>
  JSON.parse(execFileSync('tar', ['xzOf', join(out, tarball), 'package/package.json'], { encoding: 'utf8' }));

/** Whether the registry has this very version. */
function isPublished({ name, version }) {
  const args = ['view', `${name}@${version}`, 'version'];
  return new Promise((resolve) =>
    execFile('npm', args, (_error, stdout) => resolve(stdout.trim() === version)),
  );
}

function publish(tarball, manifest, isThere) {
  const title = `${manifest.name}@${manifest.version}`;
  if (isThere) return console.log(`already published: ${title}`);
  const options = isDryRun ? ['--dry-run'] : [];
  execFileSync('npm', ['publish', `./${tarball}`, '--access', 'public', ...options], { cwd: out, stdio: ['ignore', 'ignore', 'inherit'] }); // prettier-ignore
  console.log(`${isDryRun ? 'would publish' : 'published'}: ${title}`);
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out);
const tarballs = publishedFolders().flatMap(pack);
const manifests = tarballs.map(manifestIn);
const published = await Promise.all(manifests.map(isPublished));
for (const [i, tarball] of tarballs.entries()) publish(tarball, manifests[i], published[i]);
