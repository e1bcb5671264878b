/** What a probe has found: judged from how its process went, and from what it said. */
import type { BackendInfo, DeviceInfo, Dtype } from '../backend/index.js';
import { deviceClasses, isObject, type BackendManifest, type Problem } from './manifest.js';

/** Where the process is. */
type Phase = 'import' | 'create' | 'devices' | 'exit';

/** A line that the process says. */
export type ProbeMessage =
  | { readonly phase: Phase }
  | { readonly info: unknown; readonly devices: unknown }
  /** Thrown by the backend, or about it. */
  | { readonly error: string };

export interface ProbeFacts {
  readonly info: BackendInfo;
  readonly devices: readonly DeviceInfo[];
}

export type ProbeOutcome = { readonly facts: ProbeFacts } | { readonly problem: Problem };

/** How the process went. */
export interface ProbeRun {
  readonly messages: readonly ProbeMessage[];
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
  readonly timeoutMs: number;
  readonly stdout: string;
  readonly stderr: string;
}

const computeDtypes: readonly Dtype[] = ['f32', 'bf16', 'f16'];

const during: Readonly<Record<Phase, string>> = {
  import: 'while its module was loading',
  create: 'in create()',
  devices: 'in devices()',
  exit: 'while the process was exiting',
};

export function judgeProbe(manifest: BackendManifest, run: ProbeRun): ProbeOutcome {
  const thrown = run.messages.find((message) => 'error' in message);
  const result = run.messages.find((message) => 'devices' in message);
  if (run.timedOut) return { problem: tooSlow(run) };
  if (thrown !== undefined) return { problem: { reason: oneLine(thrown.error), remedy: remedyFor(thrown.error) } }; // prettier-ignore
  if (run.signal !== null || run.exitCode !== 0 || result === undefined) return { problem: died(run) };
  if (run.stdout !== '') return { problem: printed(run.stdout) };
  const reason = whyNoFacts(manifest, result);
  if (reason !== undefined) return { problem: { reason, remedy: mendPackage } };
  return { facts: result as ProbeFacts };
}

const mendPackage = 'update the package, or tell its authors';

function tooSlow(run: ProbeRun): Problem {
  const seconds = run.timeoutMs / 1000;
  return {
    reason: `it did not end within ${seconds} s; the time was up ${during[lastPhase(run)]}${lastWords(run)}`,
    remedy: `set TENON_PROBE_TIMEOUT to more than ${seconds} (seconds) where its driver is slow to start; else ${mendPackage}`,
  };
}

function died(run: ProbeRun): Problem {
  const how = run.signal === null ? `ended the process with exit code ${run.exitCode}` : `was ended by ${run.signal}`; // prettier-ignore
  return {
    reason: `it ${how} ${during[lastPhase(run)]}${lastWords(run)}`,
    remedy: `check the device's driver, and that the package is built for it; else ${mendPackage}`,
  };
}

function printed(stdout: string): Problem {
  return {
    reason: `it prints to stdout, which belongs to the command: ${JSON.stringify(stdout.slice(0, 80))}`,
    remedy: `print to stderr or call host.log instead; or ${mendPackage}`,
  };
}

/** The process may have died before it could say anything. */
function lastPhase({ messages }: ProbeRun): Phase {
  const last = messages.findLast((message) => 'phase' in message);
  return last === undefined ? 'import' : last.phase;
}

/** The last line that it printed, of an uncaught error its message. */
function lastWords({ stderr }: ProbeRun): string {
  const lines = stderr.split('\n').filter((line) => /\w/.test(line) && !/^\s+at |^Node\.js v/.test(line));
  return lines.length === 0 ? '' : `: ${lines.at(-1)!.trim()}`;
}

const oneLine = (text: string): string => text.replaceAll(/\s*\n\s*/g, ' ').trim();

/** What helps against errors of the dynamic linker, whose words say little to most people. */
function remedyFor(error: string): string {
  if (/NODE_MODULE_VERSION|Module did not self-register/.test(error))
    return `rebuild or reinstall the package for Node.js ${process.version}`;
  if (/cannot open shared object file/.test(error))
    return "install the library that it names: it comes with the device's driver or the vendor's toolkit";
  if (/undefined symbol|version `.*' not found|invalid ELF header|wrong ELF class/.test(error))
    return `rebuild or reinstall the package on this machine (${process.platform}-${process.arch})`;
  return mendPackage;
}

/** What is wrong about what it said, if anything. */
function whyNoFacts({ id }: BackendManifest, said: { info: unknown; devices: unknown }): string | undefined {
  const { info, devices } = said;
  if (!isObject(info)) return `info is ${shown(info)}; expected { id, owner, version, runtime }`;
  if (info['id'] !== id) return `info.id is ${shown(info['id'])}; expected '${id}', as tenon.backend.id`;
  if (typeof info['version'] !== 'string') return `info.version is ${shown(info['version'])}; expected a text`; // prettier-ignore
  if (!isObject(info['runtime'])) return `info.runtime is ${shown(info['runtime'])}; expected an object of texts`; // prettier-ignore
  if (!Array.isArray(devices)) return `devices() gave ${shown(devices)}; expected a list`;
  for (const [i, device] of devices.entries()) {
    const wrong = whyNoDevice(id, device);
    if (wrong !== undefined) return `devices()[${i}]${wrong}`;
  }
  return undefined;
}

function whyNoDevice(backendId: string, device: unknown): string | undefined {
  if (!isObject(device)) return ` is ${shown(device)}; expected an object`;
  for (const [field, isRight, expected] of deviceFields(backendId, device['usable'] === true)) {
    if (!isRight(device[field])) return `.${field} is ${shown(device[field])}; expected ${expected}`;
  }
  return undefined;
}

type FieldRow = readonly [field: string, isRight: (value: unknown) => boolean, expected: string];

/** Sizes and types matter only of a device that can be used; why not, of one that cannot. */
function deviceFields(backendId: string, usable: boolean): readonly FieldRow[] {
  const isOneOf = (list: readonly string[]) => (value: unknown) => list.some((entry) => entry === value);
  const isText = (value: unknown): boolean => typeof value === 'string' && value !== '';
  const isBytes = (value: unknown): boolean => typeof value === 'number' && value >= 0;
  const always: readonly FieldRow[] = [
    ['id', (value) => typeof value === 'string' && new RegExp(`^${backendId}:\\d+$`).test(value), `${backendId}:<n>`],
    ['class', isOneOf(deviceClasses), deviceClasses.join(', ')],
    ['name', isText, 'a text'],
    ['usable', (value) => typeof value === 'boolean', 'true or false'],
  ]; // prettier-ignore
  const ofUsable: readonly FieldRow[] = [
    ['memoryBytes', isBytes, 'a number of bytes'],
    ['freeBytes', isBytes, 'a number of bytes'],
    ['dtypes', (value) => Array.isArray(value) && value.length > 0 && value.every(isOneOf(computeDtypes)), `a list of ${computeDtypes.join(', ')}`],
    ['preferredDtype', isOneOf(computeDtypes), computeDtypes.join(', ')],
  ]; // prettier-ignore
  return [...always, ...(usable ? ofUsable : [['reason', isText, 'why it cannot be used'] as const])];
}

const shown = (value: unknown): string => JSON.stringify(value) ?? String(value);
