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
const isFirstParty = (name: string): boolean => /^@tenon\/[a-z][\w-]*$/.test(name);

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
  const allowed = allowList(options.env);
  const registry = readRegistry(options.env);
  const search = new PackageSearch();
  const isTrusted = trustRule(allowed, app, search);
  const packages = new Map<string, PluginPackage>();
  const missing: MissingPackage[] = registry.problem === undefined ? [] : [registry.problem];
  for (const place of placesOf(options, app, registry, allowed ?? [])) {
    const { name, source } = place;
    const folder = search.find(name, place.from);
    const manifest = folder === undefined ? undefined : readPluginJson(folder);
    if (folder === undefined || manifest === undefined) {
      if (isNamedByUser(source) && !isOwnNameOfOne(name, source, packages))
        missing.push({ name, source, ...whyMissing(place, folder) });
    } else if (!packages.has(real(folder))) {
      const ownName = String(manifest['name'] ?? name);
      const distrust = isTrusted(place, folder, ownName) ? undefined : distrustOf(ownName);
      packages.set(real(folder), { name: ownName, source, folder, manifest, distrust });
    }
  }
  return { packages: [...packages.values()], missing };
}

/** Undefined where TENON_PLUGINS is not set. */
function allowList(env: DiscoverOptions['env']): readonly string[] | undefined {
  return env?.['TENON_PLUGINS']?.split(',').map((name) => name.trim()).filter(Boolean); // prettier-ignore
}

/** Where to look, in order. */
function placesOf(
  { plugins }: DiscoverOptions,
  app: string,
  registry: Registry,
  allowed: readonly string[],
): readonly Place[] {
  const place = (source: PluginSource, from: string) => (name: string) => ({ name, source, from });
  return [
    ...plugins.map(place('option', app)),
    ...directDependencies(app).map(place('dependency', app)),
    ...firstParty.map(place('first-party', app)),
    ...registry.names.map((name) => place('registry', isPath(name) ? dirname(registry.file) : app)(name)),
    ...allowed.map(place('TENON_PLUGINS', app)),
  ];
}

type TrustRule = (place: Place, folder: string, ownName: string) => boolean;

function trustRule(allowed: readonly string[] | undefined, app: string, search: PackageSearch): TrustRule {
  const folders = new Set(allowed?.flatMap((name) => search.find(name, app) ?? []).map(real));
  return ({ name, source }, folder, ownName) => {
    if (source === 'option' || isFirstParty(name) || folders.has(real(folder))) return true;
    if (source === 'dependency') return allowed === undefined;
    return source === 'registry' && allowed?.includes(ownName) === true;
  };
}

interface Place {
  readonly name: string;
  readonly source: PluginSource;
  /** The folder that a path is relative to, and that a name is resolved from. */
  readonly from: string;
}

/** What may be absent, and is no mistake then: dependencies that are no plugins, packages of ours. */
export const isNamedByUser = (source: PluginSource): boolean =>
  source !== 'dependency' && source !== 'first-party';

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

interface Registry {
  readonly file: string;
  /** Packages and folders; they run only if TENON_PLUGINS allows them. */
  readonly names: readonly string[];
  readonly problem?: MissingPackage;
}

/** The user's own list. */
function readRegistry(env: DiscoverOptions['env']): Registry {
  const config = env?.['XDG_CONFIG_HOME'] || join(env?.['HOME'] || homedir(), '.config');
  const file = join(config, 'tenon', 'plugins.json');
  if (!existsSync(file)) return { file, names: [] };
  const names = readJson(file)?.['plugins'];
  if (Array.isArray(names) && names.every((name) => typeof name === 'string')) return { file, names };
  const reason = 'it does not hold { "plugins": ["<package or folder>"] }';
  return {
    file,
    names: [],
    problem: { name: file, source: 'registry', reason, remedy: 'mend or remove it' },
  };
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
