/**
 * A backend's packages, ready for `npm publish`. One without native code is one package. One on the SDK is several: the package
 * itself, and one for each platform it names, `<package>-<platform>-<arch>`, which holds the built addon alone. The package asks for
 * those as optional dependencies, which npm, pnpm and yarn install where `os` and `cpu` fit and leave out elsewhere. They are
 * written here, not kept in the package's own package.json, where they would keep `npm install` from working before the first
 * release.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';

import { TenonError } from '../errors.js';
import { readJson } from './manifest.js';

/** What is read of a backend's package.json, and copied into those of its platforms. */
interface PackageJson {
  readonly name: string;
  readonly version: string;
  readonly [field: string]: unknown;
}

/** Fields that a platform's package shares with the backend's own. */
const sharedFields = ['version', 'license', 'author', 'repository', 'homepage', 'bugs', 'publishConfig'];

/**
 * Writes the tarballs of the backend in `folder` into `outFolder`, and names them in the order in which they have to be published: that
 * of this machine's platform first, so that nobody can install the package without it.
 * @throws config.backend-invalid where the folder holds no backend, one that is not built for a platform that it names, or one whose own
 * script `check:pack` fails
 */
export function packBackend(folder: string, outFolder: string): readonly string[] {
  const manifest = readBackend(folder);
  const addons = findAddons(folder);
  const isNative = existsSync(join(folder, 'native'));
  if (isNative && addons.length !== 1)
    throw invalid(
      folder,
      `native/build/Release has ${addons.length} addons (*.node); expected 1: build it with npm run build`,
    );
  runOwnCheck(folder, manifest);
  const scratch = mkdtempSync(join(tmpdir(), 'tenon-pack-'));
  try {
    mkdirSync(outFolder, { recursive: true });
    const platforms = isNative ? platformsOf(manifest, folder) : [];
    const staged = [stagePackage(folder, manifest, platforms, join(scratch, 'package'))];
    if (isNative) staged.unshift(stageAddon(folder, manifest, addons[0]!, join(scratch, 'addon')));
    return staged.map((stage) => join(outFolder, npmPack(stage, ['--pack-destination', resolve(outFolder)]).filename)); // prettier-ignore
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

const thisPlatform = `${process.platform}-${process.arch}`;

function readBackend(folder: string): PackageJson {
  const manifest = readJson(join(folder, 'package.json'));
  if (manifest === undefined) throw invalid(folder, 'there is no package.json that can be read');
  const { name, version, tenon } = manifest;
  if (typeof name !== 'string' || typeof version !== 'string')
    throw invalid(folder, 'its package.json has no name or version');
  if ((tenon as { backend?: unknown } | undefined)?.backend === undefined)
    throw invalid(folder, 'its package.json has no tenon.backend');
  return manifest as PackageJson;
}

/** Files of addons that the backend's own build has left. */
function findAddons(folder: string): string[] {
  const release = join(folder, 'native/build/Release');
  if (!existsSync(release)) return [];
  return readdirSync(release)
    .filter((file) => file.endsWith('.node'))
    .map((file) => join(release, file));
}

/** The backend's own last word on whether what was built is what it promises. */
function runOwnCheck(folder: string, { scripts }: PackageJson): void {
  if ((scripts as Readonly<Record<string, string>> | undefined)?.['check:pack'] === undefined) return;
  const { status, stderr } = spawnSync('npm', ['run', '--silent', 'check:pack'], { cwd: folder, encoding: 'utf8' }); // prettier-ignore
  if (status !== 0) throw invalid(folder, `its script check:pack failed: ${stderr.trim()}`);
}

/** The platforms that the manifest names, this machine's among them. */
function platformsOf(manifest: PackageJson, folder: string): readonly string[] {
  const { platforms } = (manifest['tenon'] as { backend: { platforms?: unknown } }).backend;
  if (!Array.isArray(platforms) || !platforms.includes(thisPlatform))
    throw invalid(
      folder,
      `tenon.backend.platforms is ${JSON.stringify(platforms)}, without ${thisPlatform}, for which it is built here`,
    );
  return platforms as string[];
}

/** The package itself as npm would pack it, with a dependency on the package of each platform. */
function stagePackage(
  folder: string,
  manifest: PackageJson,
  platforms: readonly string[],
  stage: string,
): string {
  for (const { path } of npmPack(folder, ['--dry-run']).files)
    copyFile(join(folder, path), join(stage, path));
  const { name, version } = manifest;
  const prebuilt = Object.fromEntries(platforms.map((platform) => [`${name}-${platform}`, version]));
  const optionalDependencies = { ...(manifest['optionalDependencies'] as object | undefined), ...prebuilt };
  writePackageJson(stage, platforms.length === 0 ? manifest : { ...manifest, optionalDependencies });
  return stage;
}

/** The package of this machine's platform: the addon, and the licence. */
function stageAddon(folder: string, manifest: PackageJson, addon: string, stage: string): string {
  const file = basename(addon);
  const shared = Object.fromEntries(
    sharedFields.flatMap((field) => (manifest[field] === undefined ? [] : [[field, manifest[field]]])),
  );
  copyFile(addon, join(stage, file));
  if (existsSync(join(folder, 'LICENSE'))) copyFile(join(folder, 'LICENSE'), join(stage, 'LICENSE'));
  writePackageJson(stage, {
    name: `${manifest.name}-${thisPlatform}`,
    description: `The native part of ${manifest.name} for ${thisPlatform}`,
    ...shared,
    os: [process.platform],
    cpu: [process.arch],
    ...(usesGlibc() ? { libc: ['glibc'] } : {}),
    main: `./${file}`,
    files: [file],
  });
  return stage;
}

/** Whether Node, and so the addon, was linked with glibc; the other C library of Linux is musl. */
function usesGlibc(): boolean {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime !== undefined;
}

interface Packed {
  readonly filename: string;
  readonly files: readonly { readonly path: string }[];
}

/** Packs without running the package's scripts: what is packed is what was built and tested. */
function npmPack(folder: string, options: readonly string[]): Packed {
  const args = ['pack', '--json', '--ignore-scripts', ...options];
  const { status, error, stdout, stderr } = spawnSync('npm', args, { cwd: folder, encoding: 'utf8' });
  if (status !== 0) throw invalid(folder, `npm ${args.join(' ')} failed: ${error?.message ?? stderr.trim()}`);
  return (JSON.parse(stdout) as readonly [Packed])[0];
}

function copyFile(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
}

function writePackageJson(stage: string, content: object): void {
  mkdirSync(stage, { recursive: true });
  writeFileSync(join(stage, 'package.json'), `${JSON.stringify(content, null, 2)}\n`);
}

const invalid = (folder: string, reason: string) =>
  new TenonError('config.backend-invalid', `${folder} cannot be packed: ${reason}`);
