/** From the user's word for a device to a backend and its device. */
import { pathToFileURL } from 'node:url';
import { existsSync } from 'node:fs';
import type { Backend, BackendModule, DeviceInfo, Host } from '../backend/index.js';
import { TenonError } from '../errors.js';
import type { Candidate } from './discover.js';
import { backendApi } from './manifest.js';

export interface ChosenDevice {
  readonly backend: Backend;
  readonly device: DeviceInfo;
}

/** Preference of `auto`, as long as one device is used. */
const classOrder: readonly DeviceInfo['class'][] = ['gpu', 'npu', 'tpu', 'other', 'cpu'];

/** The code of a backend package, checked to be one. */
export async function loadBackendModule(packageName: string, entry: string): Promise<BackendModule> {
  const invalid = (reason: string, cause?: unknown) =>
    new TenonError('config.backend-invalid', `backend package ${packageName}: ${reason}`, { cause });
  if (!existsSync(entry)) throw invalid(`its entry ${entry} does not exist; build or reinstall the package`);
  const loaded = (await import(pathToFileURL(entry).href).catch((error: unknown) => {
    throw invalid(
      `its entry failed to load: ${error instanceof Error ? error.message : String(error)}`,
      error,
    );
  })) as { default?: Partial<BackendModule> };
  const module = loaded.default;
  if (module?.api === undefined || typeof module.create !== 'function')
    throw invalid(`${entry} has no backend as its default export`);
  if (module.api.major !== backendApi.major || module.api.minor > backendApi.minor) {
    throw invalid(
      `it was made for backend api ${module.api.major}.${module.api.minor}, and this is ${backendApi.major}.${backendApi.minor}`,
    );
  }
  return module as BackendModule;
}

/**
 * `auto`: the first usable device, accelerators before the CPU. `<id>` or `<id>:<n>`: that one, or an error that says why
 * not; never another in its place.
 */
export async function chooseDevice(
  wanted: string,
  candidates: readonly Candidate[],
  host: Host,
): Promise<ChosenDevice> {
  const named = candidates.find(({ manifest, source }) => manifest === undefined && source !== 'dependency' && source !== 'first-party'); // prettier-ignore
  if (named !== undefined)
    throw new TenonError('config.backend-invalid', `plugin '${named.name}': ${named.problem}`);
  const id = wanted.split(':')[0]!;
  const manifests = candidates.flatMap(({ manifest }) => manifest ?? []);
  if (wanted === 'auto') return chooseAutomatically(manifests, candidates, host);
  const manifest = manifests.find((entry) => entry.id === id);
  if (manifest === undefined) throw notFound(wanted, candidates);
  const backend = (await loadBackendModule(manifest.packageName, manifest.entry)).create(host);
  return pickDevice(wanted, backend);
}

/** The device of this backend that `wanted` names, `auto` and a bare id being its first usable one. */
export async function pickDevice(wanted: string, backend: Backend): Promise<ChosenDevice> {
  const devices = await backend.devices();
  const isExact = wanted.includes(':');
  const matching = isExact ? devices.filter(({ id }) => id === wanted) : devices;
  const device = matching.find(({ usable }) => usable) ?? matching[0];
  if (device === undefined) {
    const have = devices.map(({ id }) => id).join(', ') || 'none';
    throw new TenonError(
      'config.device-not-found',
      `no device '${wanted}'; ${backend.info.id} has: ${have}`,
      { param: 'device' },
    );
  }
  if (device.usable) return { backend, device };
  throw new TenonError('config.device-unusable', `device ${device.id} (${device.name}) cannot be used: ${whyUnusable(device)}`, { param: 'device' }); // prettier-ignore
}

const whyUnusable = ({ reason, remedy }: DeviceInfo): string =>
  remedy ? `${reason}; ${remedy}` : `${reason}`;

async function chooseAutomatically(
  manifests: readonly { readonly packageName: string; readonly entry: string }[],
  candidates: readonly Candidate[],
  host: Host,
): Promise<ChosenDevice> {
  const usable: ChosenDevice[] = [];
  const problems: string[] = [];
  for (const { packageName, entry } of manifests) {
    try {
      const backend = (await loadBackendModule(packageName, entry)).create(host);
      for (const device of await backend.devices()) {
        if (device.usable) usable.push({ backend, device });
        else problems.push(`${device.id}: ${whyUnusable(device)}`);
      }
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error));
    }
  }
  const best = usable.toSorted(
    (a, b) => classOrder.indexOf(a.device.class) - classOrder.indexOf(b.device.class),
  )[0];
  if (best === undefined) throw problems.length > 0 ? noneUsable(problems) : notFound('auto', candidates);
  for (const problem of problems) host.log('warn', `not used: ${problem}`);
  return best;
}

function noneUsable(problems: readonly string[]): TenonError {
  return new TenonError('config.device-unusable', `no device can be used: ${problems.join('; ')}`, {
    param: 'device',
  });
}

function notFound(wanted: string, candidates: readonly Candidate[]): TenonError {
  const found = candidates.map(({ manifest, name, problem }) =>
    manifest === undefined ? `${name} (${problem})` : manifest.id,
  );
  const id = wanted === 'auto' ? 'cpu' : wanted.split(':')[0]!;
  const message = `no backend '${wanted}'; found: ${found.join(', ') || 'none'}; install @tenon/backend-${id}, or name another with --plugin`;
  return new TenonError('config.device-not-found', message, { param: 'device' });
}
