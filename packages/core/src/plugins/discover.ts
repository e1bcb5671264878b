/** Which backends there are. Only JSON is read here; a backend's code runs in a probe (probe.ts), and then when a device of it is used. */
import { extensionKinds } from './extensions.js';
import { isObject, readManifest, type BackendManifest, type Problem } from './manifest.js';
import {
  findPackages,
  type DiscoverOptions,
  type MissingPackage,
  type PluginPackage,
  type PluginSource,
} from './plugin-packages.js';

/** A backend package, or what the user named as one. */
export interface Candidate {
  /** The package's name; of what is not there, as the user spells it. */
  readonly name: string;
  readonly version: string | undefined;
  readonly source: PluginSource;
  /** Undefined where the manifest does not say. */
  readonly id: string | undefined;
  /** Undefined where it is wrong, or not for this core or machine. */
  readonly manifest: BackendManifest | undefined;
  /** Why it may not be loaded; undefined where it may. */
  readonly refusal: Refusal | undefined;
}

export interface Refusal extends Problem {
  readonly state: 'ignored' | 'untrusted' | 'incompatible';
}

/** In order of precedence; of two with the same id, the first that may be loaded counts. */
export function discoverBackends(options: DiscoverOptions): readonly Candidate[] {
  const { packages, missing } = findPackages(options);
  const found = packages.flatMap((found) => candidateOf(found) ?? []);
  return [...missing.map(missingCandidate), ...withoutRepeats(found)];
}

function missingCandidate({ name, source, reason, remedy }: MissingPackage): Candidate {
  const refusal: Refusal = { state: 'incompatible', reason, remedy };
  return { name, version: undefined, source, id: undefined, manifest: undefined, refusal };
}

/** Undefined: the package has plugins of other kinds only. */
function candidateOf({
  name,
  source,
  folder,
  manifest: json,
  distrust,
}: PluginPackage): Candidate | undefined {
  const version = typeof json['version'] === 'string' ? json['version'] : undefined;
  const base = { name, version, source };
  if (!isObject(json['tenon'])) {
    const reason = `tenon is ${JSON.stringify(json['tenon'])}; expected an object`;
    return { ...base, id: undefined, manifest: undefined, refusal: { state: 'incompatible', reason, remedy: "mend the package's package.json" } }; // prettier-ignore
  }
  const reading = readManifest(folder, json);
  if (reading === undefined && hasExtensions(json['tenon'])) return undefined;
  if (reading === undefined) return { ...base, id: undefined, manifest: undefined, refusal: nothingKnown(json['tenon']) }; // prettier-ignore
  if ('problems' in reading) {
    const [reason, remedy] = [joined(reading.problems, 'reason'), joined(reading.problems, 'remedy')];
    return {
      ...base,
      id: reading.id,
      manifest: undefined,
      refusal: { state: 'incompatible', reason, remedy },
    };
  }
  const { manifest } = reading;
  const refusal: Refusal | undefined = distrust && { state: 'untrusted', ...distrust };
  return { ...base, id: manifest.id, manifest, refusal };
}

const hasExtensions = (tenon: Readonly<Record<string, unknown>>): boolean =>
  Object.keys(extensionKinds).some((kind) => tenon[kind] !== undefined);

function nothingKnown(tenon: Readonly<Record<string, unknown>>): Refusal {
  const known = ['backend', ...Object.keys(extensionKinds)].join(', ');
  const reason = `tenon has ${Object.keys(tenon).join(', ') || 'no field'}; expected one of ${known}`;
  return { state: 'incompatible', reason, remedy: "mend the package's package.json" };
}

const joined = (problems: readonly Problem[], field: keyof Problem): string =>
  [...new Set(problems.map((problem) => problem[field]))].join('; ');

function withoutRepeats(candidates: readonly Candidate[]): Candidate[] {
  const firsts = new Map<string, Candidate>();
  return candidates.map((candidate) => {
    const { id, refusal } = candidate;
    if (id === undefined || refusal !== undefined) return candidate;
    const first = firsts.get(id);
    if (first === undefined) firsts.set(id, candidate);
    return first === undefined ? candidate : { ...candidate, refusal: repeated(id, first, candidate) };
  });
}

function repeated(id: string, first: Candidate, { name }: Candidate): Refusal {
  return {
    state: 'ignored',
    reason: `${first.name} (${first.source}) has the id '${id}' too and comes first`,
    remedy: `to use this one, name it with --plugin ${name}; else remove one of the two`,
  };
}
