/**
 * A package registry on loopback that has nothing but what is published to it: what an installation asks for besides is an error.
 * Its data lie in a folder of their own, and so does npm's cache of those who use it.
 */
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from './serve-process.js';

const repository = fileURLToPath(new URL('..', import.meta.url));
const verdaccio = join(repository, 'node_modules/verdaccio/bin/verdaccio');

export interface LoopbackRegistry extends AsyncDisposable {
  readonly url: string;
  /** Of commands that install from it or publish to it; nothing of this machine's npm configuration is left. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Starts a registry whose files are in `folder`, logged in. */
export async function startRegistry(folder: string): Promise<LoopbackRegistry> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.yaml'), configuration);
  const child = spawn(process.execPath, [verdaccio, '--listen', `127.0.0.1:${port}`, '--config', join(folder, 'config.yaml')]); // prettier-ignore
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (printed += data));
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const stop = async () => {
    child.kill();
    await exited;
  };
  const isUp = () => fetch(`${url}-/ping`).then(({ ok }) => ok, () => false); // prettier-ignore
  for (const start = performance.now(); !(await isUp());) {
    if (child.exitCode !== null || performance.now() - start > 60_000)
      throw new Error(`verdaccio did not start: ${printed}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  writeFileSync(join(folder, 'npmrc'), `${url.replace('http:', '')}:_authToken=${await logIn(url)}\n`);
  return { url, environment: environmentOf(folder, url), [Symbol.asyncDispose]: stop };
}

const configuration = `
storage: ./storage
auth: { htpasswd: { file: ./htpasswd } }
uplinks: {}
packages: { '**': { access: $all, publish: $authenticated } }
max_body_size: 200mb
web: { enable: false }
log: { type: stdout, format: json, level: warn }
`;

/** Makes a user; a token to publish with. */
async function logIn(url: string): Promise<string> {
  const response = await fetch(`${url}-/user/org.couchdb.user:publisher`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'publisher', password: 'loopback-only' }),
  });
  return ((await response.json()) as { token: string }).token;
}

/** This process's environment without npm's variables, which a script that npm runs is full of. */
function environmentOf(folder: string, url: string): Record<string, string> {
  const kept = Object.entries(process.env).filter(([name]) => !/^(npm|pnpm|tenon)_/i.test(name));
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    npm_config_registry: url,
    npm_config_userconfig: join(folder, 'npmrc'),
    npm_config_cache: join(folder, 'cache'),
    npm_config_update_notifier: 'false',
    npm_config_audit: 'false',
    npm_config_fund: 'false',
    npm_config_yes: 'true',
  };
}

interface Locked {
  readonly dependencies?: Readonly<Record<string, string>>;
}

/**
 * Publishes third-party packages and all that they need in production, from where `npm ci` has put them. `names` are as the package
 * in that folder of the repository would resolve them.
 */
export async function publishInstalled(
  registry: LoopbackRegistry,
  folder: string,
  names: Readonly<Record<string, readonly string[]>>,
): Promise<void> {
  const found = Object.entries(names).flatMap(([from, wanted]) => [...productionTree(wanted, from)]);
  mkdirSync(join(folder, 'third-party'));
  const tarballs = [...new Set(found)].map((path, i) => {
    const tarball = join(folder, 'third-party', `${i}.tgz`);
    const inPackage = ['--exclude=./node_modules', '--transform=s,^\\.,package,', '.'];
    execFileSync('tar', ['-I', 'gzip -1', '-cf', tarball, '-C', join(repository, path), ...inPackage]);
    return tarball;
  });
  await Promise.all(tarballs.map((tarball) => putPackage(registry, tarball)));
}

const lock = JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as {
  packages: Readonly<Record<string, Locked>>;
};

/** Folders of the packages that `names` are from the one at `path`, and of those that they need. */
function productionTree(names: readonly string[], path: string, found = new Set<string>()): Set<string> {
  for (const name of names) {
    const dependency = resolve(name, path);
    if (found.has(dependency)) continue;
    found.add(dependency);
    productionTree(Object.keys(lock.packages[dependency]?.dependencies ?? {}), dependency, found);
  }
  return found;
}

/** Where Node finds `name` from the package at `path`: beside it, or in a folder above. */
function resolve(name: string, path: string): string {
  for (let folder = path; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (lock.packages[candidate] !== undefined) return candidate;
    if (folder === '.') throw new Error(`${path} needs ${name}, which is not locked`);
  }
}

/** What `npm publish` sends, without its second per package. */
async function putPackage({ url, environment }: LoopbackRegistry, tarball: string): Promise<void> {
  const content = readFileSync(tarball);
  const manifest = JSON.parse(execFileSync('tar', ['xzOf', tarball, 'package/package.json'], { encoding: 'utf8' })); // prettier-ignore
  const { name, version } = manifest as { name: string; version: string };
  const file = `${name}-${version}.tgz`;
  const dist = {
    integrity: `sha512-${createHash('sha512').update(content).digest('base64')}`,
    shasum: createHash('sha1').update(content).digest('hex'),
    tarball: `${url}${name}/-/${file}`,
  };
  const token = /_authToken=(.*)/.exec(readFileSync(environment['npm_config_userconfig']!, 'utf8'))![1];
  const response = await fetch(`${url}${name.replace('/', '%2f')}`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({
      _id: name,
      name,
      'dist-tags': { latest: version },
      versions: { [version]: { ...manifest, dist } },
      _attachments: {
        [file]: {
          content_type: 'application/octet-stream',
          data: content.toString('base64'),
          length: content.length,
        },
      },
    }),
  });
  if (!response.ok) throw new Error(`${name}@${version} was not published: ${await response.text()}`);
}
