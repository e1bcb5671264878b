/**
 * The extension points besides backends: what packages add by data in their package.json, and the loading of one by its
 * name. Listing reads JSON only; a package's code runs when an extension of it is asked for.
 */
import { existsSync, realpathSync } from 'node:fs';
import { isAbsolute, join, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import { TenonError } from '../errors.js';
import type { ExtensionModules } from '../extensions/index.js';
import { checkPeer, isObject } from './manifest.js';
import { pluginPackages, type DiscoverOptions, type PluginPackage } from './plugin-packages.js';

/** Each is a list in `tenon` of package.json. */
export type ExtensionKind = keyof ExtensionModules;

interface KindRow {
  /** What names an entry of the list. */
  readonly key: 'architecture' | 'name' | 'scheme';
  readonly pattern: RegExp;
  readonly expected: string;
  /** For messages. */
  readonly noun: string;
  /** Functions that the default export must have. */
  readonly functions: readonly string[];
  /** What the user may have meant, where there is none of that name. */
  readonly hint?: string;
}

const word = { pattern: /^[a-z][a-z0-9_-]*$/, expected: 'a lower-case word' };

export const extensionKinds: Readonly<Record<ExtensionKind, KindRow>> = {
  models: {
    key: 'architecture',
    pattern: /^[A-Za-z][A-Za-z0-9_]*$/,
    expected: "a name as config.json's architectures has it",
    noun: 'model',
    functions: ['build'],
  },
  modelSources: {
    key: 'scheme',
    pattern: /^[a-z][a-z0-9+.-]+$/,
    expected: 'what stands before :// in lower case',
    noun: 'model source',
    functions: ['resolve'],
    hint: '; a model of the hub is org/name, without an address',
  },
  statLoggers: { key: 'name', ...word, noun: 'stat logger', functions: ['create'] },
  logitsProcessors: { key: 'name', ...word, noun: 'logits processor', functions: ['create'] },
  toolParsers: { key: 'name', ...word, noun: 'tool parser', functions: ['create'] },
};

const kinds = Object.keys(extensionKinds) as ExtensionKind[];

/** An extension that some package declares. Plain data: it can be sent to a worker thread and loaded there. */
export interface Extension {
  readonly kind: ExtensionKind;
  /** The architecture, name or scheme; `?` where the package does not say. */
  readonly name: string;
  readonly packageName: string;
  readonly packageVersion: string;
  readonly source: PluginPackage['source'];
  /** Absolute path of the module. */
  readonly entry: string;
  /**
   * ok: it may be loaded. ignored: an earlier package has the same name. untrusted: its code may not run. incompatible: what the
   * package says is wrong, or for another core.
   */
  readonly state: 'ok' | 'ignored' | 'untrusted' | 'incompatible';
  /** Why it is not ok, and what to do. */
  readonly problem: string | undefined;
}

/** All extensions of all plugin packages, in order of precedence: of two with the same name, the first counts. */
export function listExtensions(options: DiscoverOptions): readonly Extension[] {
  const seen = new Map<string, Extension>();
  return pluginPackages(options)
    .flatMap(readExtensions)
    .map((extension) => {
      if (extension.state !== 'ok') return extension;
      const key = `${extension.kind} ${extension.name}`;
      const first = seen.get(key);
      if (first === undefined) seen.set(key, extension);
      return first === undefined ? extension : repeated(extension, first);
    });
}

function repeated(extension: Extension, first: Extension): Extension {
  const { noun } = extensionKinds[extension.kind];
  const problem = `${first.packageName} has a ${noun} '${first.name}' too and comes first; to use this one, name its package with --plugin`;
  return { ...extension, state: 'ignored', problem };
}

/** What one package declares; wrong entries with what is wrong about them. */
export function readExtensions(found: PluginPackage): Extension[] {
  const tenon = found.manifest['tenon'];
  if (!isObject(tenon)) return [];
  return kinds.flatMap((kind) => (tenon[kind] === undefined ? [] : readList(found, kind, tenon[kind])));
}

function readList(found: PluginPackage, kind: ExtensionKind, list: unknown): Extension[] {
  const { key } = extensionKinds[kind];
  const expected = `expected a list of { "${key}", "entry" }`;
  if (!Array.isArray(list)) {
    return [wrong(found, kind, '?', `tenon.${kind} is ${JSON.stringify(list)}; ${expected}`)];
  }
  return list.map((item: unknown, i) => readEntry(found, kind, item, `tenon.${kind}[${i}]`));
}

function readEntry(found: PluginPackage, kind: ExtensionKind, item: unknown, at: string): Extension {
  const { key, pattern, expected } = extensionKinds[kind];
  if (!isObject(item)) {
    return wrong(found, kind, '?', `${at} is ${JSON.stringify(item)}; expected { "${key}", "entry" }`);
  }
  const name = item[key];
  if (name === undefined) return wrong(found, kind, '?', `${at}.${key} is missing`);
  if (typeof name !== 'string' || !pattern.test(name)) {
    return wrong(found, kind, '?', `${at}.${key} is ${JSON.stringify(name)}; expected ${expected}`);
  }
  const problem = entryProblem(found.folder, item['entry'], `${at}.entry`) ?? peerProblem(found.manifest);
  if (problem !== undefined) return wrong(found, kind, name, problem);
  const entry = join(found.folder, item['entry'] as string);
  const state = found.distrust === undefined ? 'ok' : 'untrusted';
  const distrust = found.distrust && `${found.distrust.reason}; ${found.distrust.remedy}`;
  return { ...describe(found, kind, name), entry, state, problem: distrust };
}

function wrong(found: PluginPackage, kind: ExtensionKind, name: string, problem: string): Extension {
  return { ...describe(found, kind, name), entry: '', state: 'incompatible', problem };
}

function describe(found: PluginPackage, kind: ExtensionKind, name: string) {
  const { manifest, source } = found;
  return { kind, name, packageName: found.name, packageVersion: String(manifest['version'] ?? '?'), source };
}

/** Why the package is for another core, where it says for which. */
function peerProblem({ peerDependencies }: PluginPackage['manifest']): string | undefined {
  if (!isObject(peerDependencies) || peerDependencies['@tenon/core'] === undefined) return undefined;
  const problem = checkPeer(peerDependencies);
  return problem && `${problem.reason}; ${problem.remedy}`;
}

/** Why `entry` names no module of the package's own, if it does not. */
function entryProblem(folder: string, entry: unknown, at: string): string | undefined {
  if (entry === undefined) return `${at} is missing`;
  if (typeof entry !== 'string' || entry === '') return `${at} is ${JSON.stringify(entry)}; expected a path`;
  const path = join(folder, entry);
  const leaves = `${at} is '${entry}', which leaves the package; expected a path inside it`;
  if (isAbsolute(entry) || !path.startsWith(folder + sep)) return leaves;
  if (!existsSync(path)) return `${at} is '${entry}', which does not exist; build or reinstall the package`;
  return realpathSync(path).startsWith(realpathSync(folder) + sep) ? undefined : leaves;
}

/**
 * The extension of that name, its code not yet run.
 * @throws `config.extension-not-found` with those there are, or `config.extension-invalid` with what is wrong about it.
 */
export function findExtension(
  kind: ExtensionKind,
  name: string,
  extensions: readonly Extension[],
): Extension {
  const same = extensions.filter((extension) => extension.kind === kind && extension.name === name);
  const found = same.find(({ state }) => state === 'ok') ?? same[0];
  if (found === undefined) throw notFound(kind, name, extensions);
  if (found.state !== 'ok') throw invalid(found, found.problem!);
  return found;
}

/** Runs the extension's code, and gives its default export: once per thread, however often it is asked for. */
export async function importExtension<K extends ExtensionKind>(
  extension: Extension & { readonly kind: K },
): Promise<ExtensionModules[K]> {
  const loaded = (await import(pathToFileURL(extension.entry).href).catch((error: unknown) => {
    throw invalid(extension, `its entry failed to load: ${messageOf(error)}`, error);
  })) as { readonly default?: unknown };
  const { functions } = extensionKinds[extension.kind];
  const exported = loaded.default;
  const lacking = functions.filter((name) => !isObject(exported) || typeof exported[name] !== 'function');
  if (lacking.length === 0) return exported as ExtensionModules[K];
  throw invalid(extension, `the default export of ${extension.entry} has no function ${lacking.join(', ')}`);
}

/** `findExtension` and `importExtension` in one. */
export function loadExtension<K extends ExtensionKind>(
  kind: K,
  name: string,
  extensions: readonly Extension[],
): Promise<ExtensionModules[K]> {
  return importExtension(findExtension(kind, name, extensions) as Extension & { readonly kind: K });
}

/** An error that names the extension and its package. */
export function invalid(extension: Extension, reason: string, cause?: unknown): TenonError {
  const { kind, name, packageName } = extension;
  return new TenonError(
    'config.extension-invalid',
    `${extensionKinds[kind].noun} '${name}' of ${packageName}: ${reason}`,
    { cause },
  );
}

function notFound(kind: ExtensionKind, name: string, extensions: readonly Extension[]): TenonError {
  const { noun, key, hint = '' } = extensionKinds[kind];
  const there = extensions.filter((extension) => extension.kind === kind);
  const found = there.map((extension) =>
    extension.state === 'ok'
      ? `${extension.name} (${extension.packageName})`
      : `${extension.name} (${extension.packageName}: ${extension.state}, ${extension.problem})`,
  );
  return new TenonError(
    'config.extension-not-found',
    `no ${noun} '${name}'; found: ${found.join(', ') || 'none'}; install a package whose tenon.${kind} has this ${key}, or name its folder with --plugin${hint}`,
  );
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
