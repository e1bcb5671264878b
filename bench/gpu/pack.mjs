#!/usr/bin/env node
// A bundle for a GPU machine without Node, npm or network: this Node, the built packages with what they need, goldens, and these scripts, as
// pieces of at most 60 MB. Needs `npm run build`, a build of the CUDA addon, tar, xz and split. README.md says what to do with it.
// usage: node bench/gpu/pack.mjs OUT [--addon FOLDER]      (FOLDER: holds tenon_cuda.node; by default where `npm run build` leaves it)
import { execSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('../..', import.meta.url));
const cuda = join(root, 'packages/backend-cuda');
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { addon: { type: 'string', default: join(cuda, 'native/build/Release') } },
});
if (positionals.length !== 1) throw new Error('usage: node bench/gpu/pack.mjs OUT [--addon FOLDER]');
const out = resolve(positionals[0]);
const pieceSize = '60M';

/** What is copied of a package of ours: its description, its code, and its addon where it has one. */
const contents = {
  core: ['package.json', 'bin', 'dist', 'native', 'tests/goldens'],
  'backend-cpu': ['package.json', 'conformance.json', 'dist', 'native/build/Release/tenon_cpu.node'],
  'backend-cuda': ['package.json', 'conformance.json', 'dist'],
  'model-stories': ['package.json', 'model'],
};

const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** Copies a package and, from where it finds them, the packages that it needs. All versions are in one folder. */
function copyWithDependencies(name, from, modules) {
  const folder = join(modules, name);
  if (existsSync(folder)) return;
  const source = folderOf(name, from);
  cpSync(source, folder, { recursive: true, dereference: true });
  for (const needed of Object.keys(readJson(join(source, 'package.json')).dependencies ?? {}))
    copyWithDependencies(needed, source, modules);
}

/** Where Node would find the package, looked for as it does: its exports may hide package.json. */
function folderOf(name, from) {
  const paths = createRequire(join(from, 'package.json')).resolve.paths(name);
  const found = paths.map((path) => join(path, name)).find((path) => existsSync(join(path, 'package.json')));
  if (found === undefined) throw new Error(`${name}, which ${from} needs, is not installed; run npm ci`);
  return found;
}

function copyOwn(name, modules) {
  const source = join(root, 'packages', name);
  for (const entry of contents[name]) {
    const from = join(source, entry);
    if (!existsSync(from)) throw new Error(`${from} does not exist; run npm run build`);
    cpSync(from, join(modules, '@tenon', name, entry), { recursive: true });
  }
  for (const needed of Object.keys(readJson(join(source, 'package.json')).dependencies ?? {}))
    if (!needed.startsWith('@tenon/')) copyWithDependencies(needed, source, modules);
}

function copyAddon(modules) {
  const addon = join(resolve(options.addon), 'tenon_cuda.node');
  if (!existsSync(addon)) throw new Error(`${addon} does not exist; packages/backend-cuda/README.md says how it is built`); // prettier-ignore
  const folder = join(modules, '@tenon/backend-cuda');
  mkdirSync(join(folder, 'native/build/Release'), { recursive: true });
  cpSync(addon, join(folder, 'native/build/Release/tenon_cuda.node'));
}

const staging = mkdtempSync(join(tmpdir(), 'tenon-bundle-'));
try {
  const app = join(staging, 'tenon');
  const modules = join(app, 'node_modules');
  mkdirSync(modules, { recursive: true });
  for (const name of Object.keys(contents)) copyOwn(name, modules);
  copyAddon(modules);
  for (const folder of ['bench/gpu', 'bench/engines', 'scripts']) cpSync(join(root, folder), join(app, folder), { recursive: true }); // prettier-ignore
  cpSync(process.execPath, join(app, 'node'));
  const dependencies = Object.fromEntries(Object.keys(contents).map((name) => [`@tenon/${name}`, '*']));
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'tenon-bundle', private: true, type: 'module', dependencies })); // prettier-ignore
  mkdirSync(out, { recursive: true });
  execSync(`tar -C '${staging}' -cf - tenon | xz -T0 -3 | split -b ${pieceSize} - '${join(out, 'tenon.tar.xz.')}'`, { stdio: 'inherit' }); // prettier-ignore
} finally {
  rmSync(staging, { recursive: true, force: true });
}
console.log(
  `there: cat ${positionals[0]}/tenon.tar.xz.* | tar -xJ && cd tenon && ./node bench/gpu/compare.mjs`,
);
