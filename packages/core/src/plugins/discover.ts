/** Which backend packages there are. Only JSON is read here; a backend's code runs when a device of it is asked for. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readJson, readManifest, type BackendManifest } from './manifest.js';

export interface DiscoverOptions {
  /** Packages or folders named by the user. */
  readonly plugins: readonly string[];
  /** The application's folder, or one below it. */
  readonly root: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** A place that was looked at. */
export interface Candidate {
  readonly name: string;
  readonly source: 'option' | 'TENON_PLUGINS' | 'dependency' | 'first-party';
  readonly manifest: BackendManifest | undefined;
  /** Why it cannot be used. */
  readonly problem: string | undefined;
}

const firstParty = ['cpu', 'cuda', 'rocm', 'xpu', 'tpu', 'neuron'].map((id) => `@tenon/backend-${id}`);
const here = dirname(fileURLToPath(import.meta.url));

/** In order of precedence; of two with the same id, the first counts. */
export function discoverBackends(options: DiscoverOptions): readonly Candidate[] {
  const app = findApp(options.root);
  const named = (options.env?.['TENON_PLUGINS'] ?? '').split(',').map((name) => name.trim()).filter(Boolean); // prettier-ignore
  const candidates = [
    ...options.plugins.map((name) => candidate(name, 'option', app)),
    ...named.map((name) => candidate(name, 'TENON_PLUGINS', app)),
    ...directDependencies(app).map((name) => candidate(name, 'dependency', app)),
    ...firstParty.map((name) => candidate(name, 'first-party', app)),
  ];
  return withoutRepeats(candidates);
}

function candidate(name: string, source: Candidate['source'], app: string): Candidate {
  const isAsked = source === 'option' || source === 'TENON_PLUGINS';
  const folder = locate(name, app);
  if (folder === undefined) return { name, source, manifest: undefined, problem: isAsked ? `no package or folder '${name}' was found from ${app}; a folder begins with ./ or /` : undefined }; // prettier-ignore
  const reading = readManifest(folder);
  if (reading === undefined) return { name, source, manifest: undefined, problem: isAsked ? `${folder}/package.json has no tenon.backend` : undefined }; // prettier-ignore
  if ('problem' in reading) return { name, source, manifest: undefined, problem: reading.problem };
  return { name, source, manifest: reading.manifest, problem: undefined };
}

/** Leaves out what has nothing to say, and packages that were found before. */
function withoutRepeats(candidates: readonly Candidate[]): Candidate[] {
  const folders = new Set<string>();
  return candidates.filter(({ manifest, problem }) => {
    if (manifest === undefined) return problem !== undefined;
    if (folders.has(manifest.folder)) return false;
    folders.add(manifest.folder);
    return true;
  });
}

/** The nearest folder upwards with a package.json. */
function findApp(root: string): string {
  let folder = resolve(root);
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

function directDependencies(app: string): string[] {
  const manifest = readJson(join(app, 'package.json'));
  const names = ['dependencies', 'optionalDependencies'].flatMap((field) =>
    Object.keys(manifest?.[field] ?? {}),
  );
  return [...new Set(names)];
}

/** A folder by its path, or a package by its name, as the application or this package would resolve it. */
function locate(name: string, app: string): string | undefined {
  if (name.startsWith('.') || name.startsWith('/')) {
    const folder = resolve(app, name);
    return existsSync(join(folder, 'package.json')) ? folder : undefined;
  }
  for (const from of [app, here]) {
    const paths = createRequire(join(from, 'package.json')).resolve.paths(name) ?? [];
    const found = paths
      .map((path) => join(path, name))
      .find((folder) => existsSync(join(folder, 'package.json')));
    if (found !== undefined) return found;
  }
  return undefined;
}
