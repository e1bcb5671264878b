/** From the user's word for a device, and the backends there are, to one that runs. */
import type { Backend, DeviceInfo, Host } from '../backend/index.js';
import { asTenonError, TenonError } from '../errors.js';
import { loadBackendModule } from './load-backend.js';
import {
  describeDevice,
  explainRanking,
  rankDevices,
  type ChosenDevice,
  type Fitness,
  type RankedDevice,
} from './rank-devices.js';
import { idOf, type BackendReport } from './survey.js';

export type { ChosenDevice, Fitness } from './rank-devices.js';

/** Whether the model runs on a device. Costs an open device and a plan, so it is asked only where there is a choice. */
export type Assess = (chosen: ChosenDevice) => Promise<Fitness>;

export interface ChooseOptions {
  /** `auto`, `<id>` or `<id>:<n>`. */
  readonly device: string;
  readonly reports: readonly BackendReport[];
  readonly host: Host;
  readonly assess: Assess;
  /** Rank also where there is nothing to choose, to show it. */
  readonly explains?: boolean;
}

export interface Choice extends ChosenDevice {
  /** How `auto` has chosen, line by line; empty where it had not to. */
  readonly explanation: readonly string[];
}

/**
 * `auto`: the best device for the model that can be used; what failed is told, a line each. `<id>` or `<id>:<n>`: that one, or an error
 * that says why not; never another in its place.
 */
export async function chooseDevice(options: ChooseOptions): Promise<Choice> {
  const wrong = options.reports.find(isWronglyNamed);
  if (wrong !== undefined) {
    const message = `plugin '${wrong.name}': ${withRemedy(wrong)}`;
    throw new TenonError('config.backend-invalid', message, { param: 'plugins' });
  }
  return options.device === 'auto' ? chooseAutomatically(options) : chooseNamed(options);
}

/** What the user has named must be there, and right. */
const isWronglyNamed = ({ source, state }: BackendReport): boolean =>
  state === 'incompatible' && (source === 'option' || source === 'TENON_PLUGINS');

async function chooseNamed({ device, reports, host }: ChooseOptions): Promise<Choice> {
  const named = reports.filter(({ id }) => id === idOf(device));
  const report = named.find(({ state }) => !isRefused(state)) ?? named[0];
  if (report === undefined) throw notFound(device, reports);
  if (report.info === undefined) throw cannotBeUsed(device, report);
  findDevice(device, report.info.id, report.devices);
  return { ...(await pickDevice(device, await loadBackend(report, host))), explanation: [] };
}

const isRefused = (state: BackendReport['state']): boolean =>
  state === 'ignored' || state === 'untrusted' || state === 'incompatible';

function cannotBeUsed(device: string, report: BackendReport): TenonError {
  const code = report.state === 'incompatible' ? 'config.backend-invalid' : 'config.device-unusable';
  const message = `device '${device}' cannot be used: ${packageOf(report)} is ${report.state}: ${withRemedy(report)}`;
  return new TenonError(code, message, { param: 'device' });
}

/** The device of a backend that `wanted` names, `auto` and a bare id being its first usable one. */
export async function pickDevice(wanted: string, backend: Backend): Promise<ChosenDevice> {
  return { backend, device: findDevice(wanted, backend.info.id, await backend.devices()) };
}

function findDevice(wanted: string, backendId: string, devices: readonly DeviceInfo[]): DeviceInfo {
  const isExact = wanted.includes(':');
  const matching = isExact ? devices.filter(({ id }) => id === wanted) : devices;
  const device = matching.find(({ usable }) => usable) ?? matching[0];
  if (device === undefined) {
    const have = devices.map(({ id }) => id).join(', ') || 'none';
    throw new TenonError('config.device-not-found', `no device '${wanted}'; ${backendId} has: ${have}`, { param: 'device' }); // prettier-ignore
  }
  if (device.usable) return device;
  throw new TenonError('config.device-unusable', `device ${device.id} (${device.name}) cannot be used: ${withRemedy(device)}`, { param: 'device' }); // prettier-ignore
}

async function loadBackend({ manifest }: BackendReport, host: Host): Promise<Backend> {
  return (await loadBackendModule(manifest!.packageName, manifest!.entry)).create(host);
}

async function chooseAutomatically({ reports, host, assess, explains }: ChooseOptions): Promise<Choice> {
  const { usable, problems } = await loadUsable(reports, host);
  if (usable.length === 0) throw noneUsable(problems, reports);
  const isChoice = usable.length > 1 || explains === true;
  const ranked = isChoice ? rankDevices(await assessAll(usable, assess)) : undefined;
  const { backend, device } = ranked?.[0] ?? usable[0]!;
  problems.push(...(ranked ?? []).slice(1).flatMap(whyPassedOver));
  for (const problem of problems) host.log('warn', `not used: ${problem}`);
  const failure = ranked === undefined || explains === true ? undefined : whyUnfit(ranked[0]!);
  if (failure !== undefined) throw failure;
  return { backend, device, explanation: explains === true ? explainRanking(ranked!) : [] };
}

interface Usable extends ChosenDevice {
  readonly report: BackendReport;
}

/** Every device that can be used, its backend loaded in this process, and a line for each that cannot. */
async function loadUsable(
  reports: readonly BackendReport[],
  host: Host,
): Promise<{ usable: Usable[]; problems: string[] }> {
  const usable: Usable[] = [];
  const problems = reports.flatMap(problemOf);
  for (const report of reports.filter(({ state }) => state === 'ok')) {
    try {
      const backend = await loadBackend(report, host);
      for (const device of await backend.devices()) {
        if (device.usable) usable.push({ report, backend, device });
        else problems.push(`${device.id} (${device.name}): ${withRemedy(device)}`);
      }
    } catch (error) {
      problems.push(`${packageOf(report)}: ${oneLine(asTenonError(error).message)}`);
    }
  }
  return { usable, problems };
}

/** What might have been used. Of what is ignored, another is there in its place, or the hardware is not. */
function problemOf(report: BackendReport): string[] {
  const { state } = report;
  return state === 'ok' || state === 'ignored' ? [] : [describeProblem(report)];
}

const describeProblem = (report: BackendReport): string =>
  `${packageOf(report)}: ${report.state}: ${withRemedy(report)}`;

/** Devices of one kind, as a host has several, are asked once. */
async function assessAll(devices: readonly Usable[], assess: Assess): Promise<RankedDevice[]> {
  const known = new Map<string, Fitness>();
  const ranked: RankedDevice[] = [];
  for (const { report, backend, device } of devices) {
    const kind = JSON.stringify([backend.info.id, { ...device, id: '' }]);
    const fitness = known.get(kind) ?? (await assess({ backend, device }));
    known.set(kind, fitness);
    ranked.push(describeDevice(report, { backend, device }, fitness));
  }
  return ranked;
}

const whyUnfit = ({ fitness }: RankedDevice): TenonError | undefined =>
  fitness.planProblem ?? fitness.memoryProblem;

function whyPassedOver(ranked: RankedDevice): string[] {
  const failure = whyUnfit(ranked);
  return failure === undefined ? [] : [`${ranked.device.id} (${ranked.device.name}): ${oneLine(failure.message)}`]; // prettier-ignore
}

const oneLine = (text: string): string => text.replaceAll(/\s*\n\s*/g, ' ');

const withRemedy = ({ reason, remedy }: Pick<DeviceInfo, 'reason' | 'remedy'>): string =>
  remedy ? `${reason}; ${remedy}` : `${reason}`;

function packageOf({ name, version }: BackendReport): string {
  return version === undefined ? name : `${name} ${version}`;
}

function noneUsable(problems: readonly string[], reports: readonly BackendReport[]): TenonError {
  const ignored = reports.filter(({ state }) => state === 'ignored').map(describeProblem);
  const all = [...problems, ...ignored];
  if (all.length === 0) return notFound('auto', reports);
  const message = `no device can be used: ${all.join('; ')}`;
  return new TenonError('config.device-unusable', message, { param: 'device' });
}

function notFound(wanted: string, reports: readonly BackendReport[]): TenonError {
  const found = reports.map((report) => {
    const because = report.state === 'ok' || report.id !== undefined ? '' : `: ${report.reason}`;
    return `${report.id ?? '?'} (${packageOf(report)}${because})`;
  });
  const id = wanted === 'auto' ? 'cpu' : idOf(wanted);
  const message = `no backend '${wanted}'; found: ${found.join(', ') || 'none'}; install @tenon/backend-${id}, or name another with --plugin`;
  return new TenonError('config.device-not-found', message, { param: 'device' });
}
