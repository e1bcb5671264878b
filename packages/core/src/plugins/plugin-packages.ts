/** The packages that may hold plugins, of whatever kind, and whether their code may run. Reads JSON only. */
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isObject, readJson, type Problem } from './manifest.js';

export interface DiscoverOptions {
  /** Packages or folders named by the user. */
  readonly plugins: readonly string[];
  /** The application's folder, or one below it. */
  readonly root: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Where a package was found, in order of precedence. */
export type PluginSource = 'option' | 'dependency' | 'first-party' | 'registry' | 'TENON_PLUGINS';

/** A package with the field `tenon`. */
export interface PluginPackage {
  readonly name: string;
  readonly source: PluginSource;
  readonly folder: string;
  /** Its package.json. */
  readonly manifest: Readonly<Record<string, unknown>>;
  /** Why its code may not run, and what to do; undefined where it may. */
  readonly distrust: Problem | undefined;
}

/** What the user named, and is no package with plugins. */
export interface MissingPackage extends Problem {
  readonly name: string;
  readonly source: PluginSource;
}

export interface FoundPackages {
  readonly packages: readonly PluginPackage[];
  readonly missing: readonly MissingPackage[];
}

/** Looked for without being named: those of the application, or those installed beside this package. */
const firstParty = ['cpu', 'cuda', 'rocm', 'xpu', 'tpu', 'neuron'].map((id) => `@tenon/backend-${id}`);

/** The scope is its owner's alone, so a package that was found under such a name is ours. */
const isFirstParty = (name: string): boolean => name.startsWith('@tenon/');

const here = dirname(fileURLToPath(import.meta.url));

/** As `findPackages`, without what is missing. */
export function pluginPackages(options: DiscoverOptions): readonly PluginPackage[] {
  return findPackages(options).packages;
}

/**
 * In order of precedence, each folder once. What the user names by option is trusted, and so are packages of ours. Direct dependencies
 * are, unless TENON_PLUGINS is set: then exactly those that it names.
 */
export function findPackages(options: DiscoverOptions): FoundPackages {
  const app = findApp(options.root);
  const registry = registryFile(options.env);
  const registered = readRegistry(registry);
  const allowed = options.env?.['TENON_PLUGINS']?.split(',').map((name) => name.trim()).filter(Boolean); // prettier-ignore
  const places: Place[] = [
    ...options.plugins.map((name) => ({ name, source: 'option', from: app }) as const),
    ...directDependencies(app).map((name) => ({ name, source: 'dependency', from: app }) as const),
    ...firstParty.map((name) => ({ name, source: 'first-party', from: app }) as const),
    ...registered.names.map((name) => ({ name, source: 'registry', from: isPath(name) ? dirname(registry) : app }) as const),
    ...(allowed ?? []).map((name) => ({ name, source: 'TENON_PLUGINS', from: app }) as const),
  ]; // prettier-ignore
  const search = new PackageSearch();
  const allowedFolders = new Set((allowed ?? []).flatMap((name) => search.find(name, app) ?? []).map(real));
  const isTrusted = ({ name, source }: Place, folder: string, ownName: string): boolean =>
    source === 'option' || isFirstParty(name) || allowedFolders.has(folder) ||
    (source === 'dependency' && allowed === undefined) ||
    (source === 'registry' && allowed?.includes(ownName) === true); // prettier-ignore

  const packages = new Map<string, PluginPackage>();
  const missing: MissingPackage[] = registered.problems.map((problem) => ({ name: registry, source: 'registry', ...problem })); // prettier-ignore
  for (const place of places) {
    const { name, source, from } = place;
    const folder = search.find(name, from);
    const manifest = folder === undefined ? undefined : readPluginJson(folder);
    if (folder !== undefined && manifest !== undefined) {
      if (packages.has(real(folder))) continue;
      const ownName = String(manifest['name'] ?? name);
      const distrust = isTrusted(place, real(folder), ownName) ? undefined : distrustOf(ownName);
      packages.set(real(folder), { name: ownName, source, folder, manifest, distrust });
    } else if (isNamedByUser(source) && !isOwnNameOfOne(name, source, packages)) {
      missing.push({ name, source, ...whyMissing(place, folder) });
    }
  }
  return { packages: [...packages.values()], missing };
}

interface Place {
  readonly name: string;
  readonly source: PluginSource;
  /** The folder that a path is relative to, and that a name is resolved from. */
  readonly from: string;
}

/** What may be absent, and is no mistake then: dependencies that are no plugins, packages of ours. */
const isNamedByUser = (source: PluginSource): boolean => source !== 'dependency' && source !== 'first-party';

/** TENON_PLUGINS may name a registered folder by its package's name. */
function isOwnNameOfOne(name: string, source: PluginSource, packages: Map<string, PluginPackage>): boolean {
  return source === 'TENON_PLUGINS' && [...packages.values()].some((found) => found.name === name);
}

const distrustOf = (name: string): Problem => ({
  reason: 'its code may not run',
  remedy: `to allow it, add ${name} to TENON_PLUGINS`,
});

function whyMissing({ name, source, from }: Place, folder: string | undefined): Problem {
  if (folder !== undefined) {
    const problem = readJson(join(folder, 'package.json')) === undefined ? 'is no JSON object' : "has no field 'tenon'"; // prettier-ignore
    return {
      reason: `${join(folder, 'package.json')} ${problem}`,
      remedy: 'name a package that holds a plugin',
    };
  }
  const what = isPath(name) ? `there is no ${join(resolve(from, name), 'package.json')}` : `no package '${name}' is installed for ${from}`; // prettier-ignore
  const where = { option: '--plugin', registry: 'the registry file' }[source as string] ?? source;
  return {
    reason: what,
    remedy: `install it, or mend ${where}; the path of a folder begins with ./ or /`,
  };
}

/** A package.json with the field `tenon`. Parsing is left to the few that have it: an application may have hundreds. */
function readPluginJson(folder: string): Readonly<Record<string, unknown>> | undefined {
  const path = join(folder, 'package.json');
  if (!readFileSync(path).includes('"tenon"')) return undefined;
  const manifest = readJson(path);
  return manifest?.['tenon'] === undefined ? undefined : manifest;
}

/** The user's list of packages and folders. They run only if TENON_PLUGINS allows them. */
function registryFile(env: DiscoverOptions['env']): string {
  const config = env?.['XDG_CONFIG_HOME'] || join(env?.['HOME'] || homedir(), '.config');
  return join(config, 'tenon', 'plugins.json');
}

function readRegistry(file: string): { names: readonly string[]; problems: readonly Problem[] } {
  if (!existsSync(file)) return { names: [], problems: [] };
  const names = readJson(file)?.['plugins'];
  if (Array.isArray(names) && names.every((name) => typeof name === 'string')) return { names, problems: [] };
  const expected = '{ "plugins": ["<package or folder>"] }';
  return { names: [], problems: [{ reason: `it does not hold ${expected}`, remedy: 'mend or remove it' }] };
}

/** The nearest folder upwards with a package.json. */
function findApp(root: string): string {
  let folder = resolve(root);
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

function directDependencies(app: string): string[] {
  const manifest = readJson(join(app, 'package.json'));
  const names = ['dependencies', 'optionalDependencies'].flatMap((field) => {
    const list = manifest?.[field];
    return isObject(list) ? Object.keys(list) : [];
  });
  return [...new Set(names)];
}

const isPath = (name: string): boolean => name.startsWith('.') || isAbsolute(name);

const real = (folder: string): string => realpathSync(folder);

/** A folder by its path, or a package by its name, as the application or else this package would resolve it. */
class PackageSearch {
  /** The folders named node_modules that Node looks into, nearest first. */
  readonly #paths = new Map<string, readonly string[]>();

  find(name: string, from: string): string | undefined {
    const folders = isPath(name)
      ? [resolve(from, name)]
      : [...this.#pathsFrom(from), ...this.#pathsFrom(here)].map((path) => join(path, name));
    return folders.find((folder) => existsSync(join(folder, 'package.json')));
  }

  #pathsFrom(folder: string): readonly string[] {
    const known = this.#paths.get(folder);
    if (known !== undefined) return known;
    const paths = createRequire(join(folder, 'package.json')).resolve.paths('a-package') ?? [];
    this.#paths.set(folder, paths);
    return paths;
  }
}
