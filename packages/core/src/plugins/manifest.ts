/** The `tenon.backend` field of a package.json: what a package says about its backend. Reading it runs no code. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Version of the backend contract that this core offers. */
export const backendApi = { major: 1, minor: 1 } as const;

export interface BackendManifest {
  readonly packageName: string;
  readonly packageVersion: string;
  /** The package's folder. */
  readonly folder: string;
  readonly id: string;
  /** Absolute path of the module. */
  readonly entry: string;
  /** Range of contract versions, `^major.minor`. */
  readonly api: string;
}

/** A package without a backend: undefined. One whose field is wrong: the reason. */
export type ManifestReading =
  { readonly manifest: BackendManifest } | { readonly problem: string } | undefined;

export function readManifest(folder: string): ManifestReading {
  const raw = readJson(join(folder, 'package.json'));
  const tenon = raw?.['tenon'];
  if (raw === undefined || !isObject(tenon) || tenon['backend'] === undefined) return undefined;
  const backend = tenon['backend'];
  if (!isObject(backend)) return { problem: 'tenon.backend is not an object' };
  const { id, entry, api } = backend;
  if (typeof id !== 'string' || !/^[a-z][a-z0-9-]*$/.test(id))
    return { problem: `tenon.backend.id is ${JSON.stringify(id)}; expected a lower-case word` };
  if (typeof entry !== 'string') return { problem: 'tenon.backend.entry is missing' };
  if (typeof api !== 'string') return { problem: 'tenon.backend.api is missing' };
  if (!acceptsApi(api))
    return { problem: `it needs backend api ${api}, and this is ${backendApi.major}.${backendApi.minor}` };
  const packageName = String(raw['name']);
  const packageVersion = String(raw['version']);
  return { manifest: { packageName, packageVersion, folder, id, entry: join(folder, entry), api } };
}

/** Whether `^major.minor` includes this core's contract. */
function acceptsApi(range: string): boolean {
  const match = /^\^?(\d+)\.(\d+)(?:\.\d+)?$/.exec(range);
  return match !== null && Number(match[1]) === backendApi.major && Number(match[2]) <= backendApi.minor;
}

export function readJson(path: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;
