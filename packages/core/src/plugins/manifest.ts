/**
 * The `tenon.backend` field of a package.json: what a package says about its backend. Reading it runs no code. Everything that is
 * wrong gets a message of its own.
 */
import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { isAbsolute, join, sep } from 'node:path';
import satisfies from 'semver/functions/satisfies.js';
import isAbove from 'semver/ranges/gtr.js';
import validRange from 'semver/ranges/valid.js';
import type { DeviceInfo } from '../backend/index.js';
import { tenonVersion } from '../version.js';
import { backendApi } from './backend-api.js';

export interface BackendManifest {
  readonly packageName: string;
  readonly packageVersion: string;
  /** The package's folder. */
  readonly folder: string;
  readonly id: string;
  /** Absolute path of the module. */
  readonly entry: string;
  /** Range of contract versions. */
  readonly api: string;
  /** Hardware that the backend is made for. */
  readonly match: readonly DeviceMatch[];
  /** Absolute path of the report of `tenon conform`. */
  readonly conformance: string | undefined;
}

export interface DeviceMatch {
  readonly class: DeviceInfo['class'];
  /** `vendor:device` as `lspci -n` has them, in hexadecimal; the device may be `*`. */
  readonly pci: readonly string[];
}

/** What is wrong, and what to do. */
export interface Problem {
  readonly reason: string;
  readonly remedy: string;
}

export type ManifestReading =
  | { readonly manifest: BackendManifest }
  /** `id` where it could be read, for messages. */
  | { readonly id: string | undefined; readonly problems: readonly Problem[] };

/** What a manifest is held against: this core and this machine. */
export interface Target {
  readonly core: string;
  readonly api: { readonly major: number; readonly minor: number };
  /** `<process.platform>-<process.arch>`. */
  readonly platform: string;
}

const thisTarget: Target = {
  core: tenonVersion,
  api: backendApi,
  platform: `${process.platform}-${process.arch}`,
};

export const deviceClasses: readonly DeviceInfo['class'][] = ['gpu', 'npu', 'tpu', 'other', 'cpu'];

type Fields = Readonly<Record<string, unknown>>;
type Check = (backend: Fields, folder: string, packageJson: Fields, target: Target) => Problem | undefined;

/** In the order in which messages are given. */
const checks: readonly Check[] = [
  ({ id }) => checkId(id),
  ({ entry }, folder) => checkEntry(entry, folder),
  ({ api }, _folder, _packageJson, target) => checkApi(api, target),
  ({ platforms }, _folder, _packageJson, target) => checkPlatforms(platforms, target),
  ({ match }) => checkMatch(match),
  ({ conformance }, folder) => checkConformance(conformance, folder),
  (_backend, _folder, packageJson, target) => checkPeer(packageJson['peerDependencies'], target),
];

/** Undefined: the package has no backend. */
export function readManifest(
  folder: string,
  packageJson: Fields | undefined = readJson(join(folder, 'package.json')),
  target: Target = thisTarget,
): ManifestReading | undefined {
  const tenon = packageJson?.['tenon'];
  if (packageJson === undefined || !isObject(tenon) || tenon['backend'] === undefined) return undefined;
  const backend = tenon['backend'];
  if (!isObject(backend)) {
    const reason = `tenon.backend is ${shown(backend)}; expected an object with id, entry and api`;
    return { id: undefined, problems: [{ reason, remedy: mendManifest }] };
  }
  const problems = checks.flatMap((check) => check(backend, folder, packageJson, target) ?? []);
  if (problems.length > 0) return { id: checkId(backend['id']) ? undefined : String(backend['id']), problems }; // prettier-ignore
  return { manifest: checkedManifest(backend as unknown as RawManifest, folder, packageJson) };
}

/** The field as it is when all checks have passed. */
interface RawManifest {
  readonly id: string;
  readonly entry: string;
  readonly api: string;
  readonly match?: readonly { readonly class: DeviceInfo['class']; readonly pci?: readonly string[] }[];
  readonly conformance?: string;
}

function checkedManifest(backend: RawManifest, folder: string, packageJson: Fields): BackendManifest {
  const { id, entry, api, match = [], conformance } = backend;
  return {
    packageName: String(packageJson['name']),
    packageVersion: String(packageJson['version']),
    folder,
    id,
    entry: join(folder, entry),
    api,
    match: match.map(({ class: deviceClass, pci = [] }) => ({
      class: deviceClass,
      pci: pci.map((id) => id.toLowerCase()),
    })),
    conformance: conformance === undefined ? undefined : join(folder, conformance),
  };
}

/** Only the package's author can help. */
const mendManifest = "mend the package's package.json, or install another version of it";

const wrong = (reason: string, remedy: string = mendManifest): Problem => ({ reason, remedy });

function checkId(id: unknown): Problem | undefined {
  if (id === undefined) return wrong('tenon.backend.id is missing; expected a lower-case word such as npu');
  if (typeof id === 'string' && /^[a-z][a-z0-9-]*$/.test(id) && id !== 'auto') return undefined;
  return wrong(
    `tenon.backend.id is ${shown(id)}; expected a lower-case word of letters, digits and -, other than auto`,
  );
}

function checkEntry(entry: unknown, folder: string): Problem | undefined {
  const problem = checkPath('entry', entry, folder);
  if (problem !== undefined) return problem;
  const path = join(folder, String(entry));
  if (!existsSync(path)) {
    return wrong(`tenon.backend.entry is ${shown(entry)}, but ${path} does not exist`, 'build or reinstall the package'); // prettier-ignore
  }
  if (statSync(path).isFile()) return undefined;
  return wrong(`tenon.backend.entry is ${shown(entry)}, which is a folder; expected a module's file`);
}

function checkConformance(conformance: unknown, folder: string): Problem | undefined {
  return conformance === undefined ? undefined : checkPath('conformance', conformance, folder);
}

/** A path of the package's own: relative, and inside the package also when links are followed. */
function checkPath(field: string, path: unknown, folder: string): Problem | undefined {
  const name = `tenon.backend.${field}`;
  if (path === undefined) return wrong(`${name} is missing; expected a path such as ./dist/index.js`);
  if (typeof path !== 'string' || path === '') return wrong(`${name} is ${shown(path)}; expected a path such as ./dist/index.js`); // prettier-ignore
  if (isAbsolute(path) || /^[a-z]+:/i.test(path)) return wrong(`${name} is ${shown(path)}, an absolute path; expected one relative to the package`); // prettier-ignore
  const inside = join(folder, path);
  if (!inside.startsWith(folder + sep)) return wrong(`${name} is ${shown(path)}, which leaves the package; expected a path inside it`); // prettier-ignore
  if (!existsSync(inside)) return undefined;
  const real = realpathSync(inside);
  if (real.startsWith(realpathSync(folder) + sep)) return undefined;
  return wrong(`${name} is ${shown(path)}, a link that leaves the package, to ${real}; expected a file inside it`); // prettier-ignore
}

function checkApi(api: unknown, target: Target): Problem | undefined {
  const { major, minor } = target.api;
  const expected = 'expected a range of backend api versions such as ^1.0';
  if (api === undefined) return wrong(`tenon.backend.api is missing; ${expected}`);
  if (typeof api !== 'string' || [null, '*'].includes(validRange(api)))
    return wrong(`tenon.backend.api is ${shown(api)}; ${expected}`);
  const offered = `${major}.${minor}.0`;
  if (satisfies(offered, api)) return undefined;
  const remedy = isAbove(offered, api)
    ? 'install a newer version of the package'
    : `install a newer @tenon/core than ${target.core}`;
  return wrong(`it needs backend api ${api}, and this is ${major}.${minor}`, remedy);
}

function checkPlatforms(platforms: unknown, { platform }: Target): Problem | undefined {
  if (platforms === undefined) return undefined;
  if (!isListOf(platforms, (entry) => typeof entry === 'string' && /^[a-z0-9]+-[a-z0-9]+$/.test(entry))) {
    return wrong(
      `tenon.backend.platforms is ${shown(platforms)}; expected a list of platforms such as linux-x64`,
    );
  }
  if (platforms.includes(platform)) return undefined;
  return wrong(
    `it is for ${platforms.join(', ') || 'no platform'}, and this is ${platform}`,
    'use a machine of that kind, or a version of the package for this one',
  );
}

function checkMatch(match: unknown): Problem | undefined {
  if (match === undefined || isListOf(match, isMatch)) return undefined;
  const expected = `a list of { "class": ${deviceClasses.join(' | ')}, "pci": ["<vendor>:<device or *>"] }`;
  return wrong(`tenon.backend.match is ${shown(match)}; expected ${expected}`);
}

function isMatch(entry: unknown): boolean {
  if (!isObject(entry) || !deviceClasses.some((name) => name === entry['class'])) return false;
  const isPciId = (id: unknown): boolean =>
    typeof id === 'string' && /^[0-9a-f]{4}:([0-9a-f]{4}|\*)$/i.test(id);
  return entry['pci'] === undefined || isListOf(entry['pci'], isPciId);
}

/** Which versions of core a package was made for, by its peer dependency. */
export function checkPeer(peers: unknown, { core }: Target = thisTarget): Problem | undefined {
  const range = isObject(peers) ? peers['@tenon/core'] : undefined;
  const name = 'peerDependencies["@tenon/core"]';
  const example = `a range such as ^${core}`;
  if (range === undefined) return wrong(`${name} is missing; expected ${example}`);
  const valid = typeof range === 'string' ? validRange(range) : null;
  if (valid === null) return wrong(`${name} is ${shown(range)}; expected ${example}`);
  if (valid === '*') return wrong(`${name} is ${shown(range)}, which names no version that it was made for; expected ${example}`); // prettier-ignore
  if (satisfies(core, valid, { includePrerelease: true })) return undefined;
  return wrong(
    `it is for @tenon/core ${String(range)}, and this is ${core}`,
    `install a version of the package for @tenon/core ${core}, or a version of @tenon/core in that range`,
  );
}

/** Undefined where there is no such file, or no JSON object in it. */
export function readJson(path: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function isListOf(value: unknown, isEntry: (entry: unknown) => boolean): value is readonly string[] {
  return Array.isArray(value) && value.every(isEntry);
}

const shown = (value: unknown): string => JSON.stringify(value) ?? String(value);
