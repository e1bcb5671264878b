/** The state of every backend there is: what its package says, and what a probe of it finds. */
import type { BackendInfo, DeviceInfo } from '../backend/index.js';
import { discoverBackends, type Candidate, type Refusal } from './discover.js';
import type { BackendManifest } from './manifest.js';
import { lacksHardware, pciDevices } from './pci-devices.js';
import { isNamedByUser, type DiscoverOptions } from './plugin-packages.js';
import { probeBackend, probeTimeoutMs, type ProbeLimits } from './probe.js';

/**
 * ok: a device of it can be used. ignored: another one counts instead, or this machine lacks the hardware it is for. untrusted: its code may not run. incompatible: not for this
 * core or machine, or not a backend. probe-failed: its code does not do what it has to. unusable: none of its devices can be used.
 */
export type BackendState = 'ok' | Refusal['state'] | 'probe-failed' | 'unusable';

/** Plain data, which can cross threads. */
export interface BackendReport extends Pick<Candidate, 'name' | 'version' | 'source' | 'id' | 'manifest'> {
  readonly state: BackendState;
  /** Why it is not `ok`. */
  readonly reason?: string;
  readonly remedy?: string;
  /** Of those that a probe has loaded. */
  readonly info?: BackendInfo;
  readonly devices: readonly DeviceInfo[];
  readonly probeMs?: number;
}

export interface SurveyOptions extends DiscoverOptions {
  /** `auto`, or the device that is asked for: other backends are then left alone. */
  readonly device: string;
  /** Milliseconds that a probe may take, unless TENON_PROBE_TIMEOUT says so. */
  readonly timeoutMs: number;
  /** Ends the probes that still run. */
  readonly signal?: AbortSignal;
}

/** For a start, which may wait for a slow driver. */
export const startTimeoutMs = 10_000;

/** In order of precedence. Probes run side by side. Throws config.invalid-environment. */
export async function surveyBackends(options: SurveyOptions): Promise<readonly BackendReport[]> {
  const timeoutMs = probeTimeoutMs(options.env ?? {}, options.timeoutMs);
  const wantedId = options.device === 'auto' ? undefined : idOf(options.device);
  return Promise.all(
    discoverBackends(options).map((candidate) => {
      const { manifest, refusal, ...base } = candidate;
      if (refusal !== undefined) return { ...base, manifest, ...refusal, devices: [] };
      if (wantedId !== undefined && base.id !== wantedId) return { ...base, manifest, ...notWanted(options.device), devices: [] }; // prettier-ignore
      return probed(candidate, manifest!, { timeoutMs, signal: options.signal }).then(
        wantedId === undefined ? ignoredWithoutHardware : undefined,
      );
    }),
  );
}

/** `npu:1` → `npu`. */
export const idOf = (device: string): string => device.split(':')[0]!;

const notWanted = (device: string): Refusal => ({
  state: 'ignored',
  reason: `device '${device}' is asked for`,
  remedy: 'ask for this one, or for auto',
});

async function probed(
  { name, version, source, id }: Candidate,
  manifest: BackendManifest,
  limits: ProbeLimits,
): Promise<BackendReport> {
  const startMs = performance.now();
  const outcome = await probeBackend(manifest, limits);
  const base = { name, version, source, id, manifest, probeMs: performance.now() - startMs };
  if ('problem' in outcome) return { ...base, state: 'probe-failed', ...outcome.problem, devices: [] };
  const { info, devices } = outcome.facts;
  const usable = devices.some((device) => device.usable);
  return { ...base, info, devices, ...(usable ? { state: 'ok' } : whyUnusable(devices)) };
}

/**
 * A backend that came along with the application, for hardware that is not here, is no news. It is probed all the same: not every
 * device is on the list of PCI devices.
 */
function ignoredWithoutHardware(report: BackendReport): BackendReport {
  const { state, source, manifest, reason } = report;
  const isNews = state === 'ok' || isNamedByUser(source) || !lacksHardware(manifest!.match, pciDevices());
  if (isNews) return report;
  const wanted = manifest!.match.flatMap(({ pci }) => pci).join(', ');
  return { ...report, state: 'ignored', reason: `this machine has no PCI device ${wanted}: ${reason}` };
}

function whyUnusable(devices: readonly DeviceInfo[]): Pick<BackendReport, 'state' | 'reason' | 'remedy'> {
  if (devices.length === 0) {
    return { state: 'unusable', reason: 'it finds no device', remedy: 'check that the device and its driver are there' }; // prettier-ignore
  }
  const joined = (field: 'reason' | 'remedy'): string =>
    [...new Set(devices.flatMap((device) => device[field] ?? []))].join('; ');
  return { state: 'unusable', reason: joined('reason'), remedy: joined('remedy') };
}
