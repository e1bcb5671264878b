/** The packages that may hold plugins, of whatever kind, and whether their code may run. Reads JSON only. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DiscoverOptions } from './discover.js';
import { readJson } from './manifest.js';

/** A package that was found, in one of the places that are looked at. */
export interface PluginPackage {
  readonly name: string;
  readonly source: 'option' | 'dependency' | 'registry' | 'TENON_PLUGINS';
  readonly folder: string;
  /** Its package.json. */
  readonly manifest: Readonly<Record<string, unknown>>;
  /** Why its code may not run, and what to do; undefined where it may. */
  readonly distrust: string | undefined;
}

const here = dirname(fileURLToPath(import.meta.url));

/**
 * In order of precedence, each folder once: what the user names, the application's direct dependencies, the user's registry
 * file. Without TENON_PLUGINS, direct dependencies are trusted; with it, exactly the packages that it names.
 */
export function pluginPackages(options: DiscoverOptions): readonly PluginPackage[] {
  const app = findApp(options.root);
  const allowed = allowList(options.env);
  const places = [
    ...options.plugins.map((name) => [name, 'option'] as const),
    ...directDependencies(app).map((name) => [name, 'dependency'] as const),
    ...registered(options.env).map((name) => [name, 'registry'] as const),
    ...(allowed ?? []).map((name) => [name, 'TENON_PLUGINS'] as const),
  ];
  const allowedFolders = new Set(allowed?.map((name) => locate(name, app)));
  const found = new Map<string, PluginPackage>();
  for (const [place, source] of places) {
    const folder = locate(place, app);
    const manifest = folder === undefined || found.has(folder) ? undefined : readJson(join(folder, 'package.json')); // prettier-ignore
    if (folder === undefined || manifest?.['tenon'] === undefined) continue;
    const name = String(manifest['name'] ?? place);
    const isTrusted =
      source === 'option' || allowedFolders.has(folder) || (source === 'dependency' && allowed === undefined);
    const distrust = isTrusted
      ? undefined
      : `its code may not run; to allow it, add ${name} to TENON_PLUGINS`;
    found.set(folder, { name, source, folder, manifest, distrust });
  }
  return [...found.values()];
}

/** Undefined where TENON_PLUGINS is not set. */
function allowList(env: DiscoverOptions['env']): readonly string[] | undefined {
  return env?.['TENON_PLUGINS']?.split(',').map((name) => name.trim()).filter(Boolean); // prettier-ignore
}

/** The packages and folders of the user's registry file. */
function registered(env: DiscoverOptions['env']): readonly string[] {
  const config = env?.['XDG_CONFIG_HOME'] || join(env?.['HOME'] ?? homedir(), '.config');
  const plugins = readJson(join(config, 'tenon', 'plugins.json'))?.['plugins'];
  return Array.isArray(plugins) ? plugins.filter((name) => typeof name === 'string') : [];
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
