/** What the backend says about itself and its devices, and what it does with those it does not have. */
import { dtypes, type DeviceGroup, type SchedulingConstraints } from '../../../backend/index.js';
import { asTenonError } from '../../../errors.js';
import { deviceClasses } from '../../../plugins/manifest.js';
import { check, fail, type ConformanceCase } from '../../case.js';
import { quietHost, type Kit } from '../../kit.js';

export function backendCases(): ConformanceCase[] {
  const cases: readonly [string, (kit: Kit) => Promise<void>][] = [
    ['api', apiIsSaid],
    ['info', infoIsSaid],
    ['devices', devicesAreDescribed],
    ['devices-quickly', devicesAreQuick],
    ['unknown-device', unknownDevicesAreRefused],
    ['constraints', constraintsAreSound],
    ['several-at-once', severalAtOnce],
  ];
  return cases.map(([name, run]) => ({ name: `L0/backend/${name}`, run }));
}

async function apiIsSaid({ module: { api } }: Kit): Promise<void> {
  check(api.major === 1, `api.major is ${api.major}; expected 1`);
  check(Number.isInteger(api.minor) && api.minor >= 0, `api.minor is ${api.minor}; expected a number`);
  check(Array.isArray(api.features), `api.features is ${String(api.features)}; expected a list`);
}

async function infoIsSaid({ backend: { info } }: Kit): Promise<void> {
  for (const field of ['id', 'owner', 'version'] as const)
    check(
      typeof info[field] === 'string' && info[field] !== '',
      `info.${field} is ${String(info[field])}; expected a word`,
    );
  check(/^[a-z][a-z0-9-]*$/.test(info.id), `info.id is '${info.id}'; expected a lower-case word`);
  for (const [key, value] of Object.entries(info.runtime))
    check(typeof value === 'string', `info.runtime.${key} is ${String(value)}; expected a string`);
}

async function devicesAreDescribed({ backend }: Kit): Promise<void> {
  const devices = await backend.devices();
  devices.forEach((device, n) => {
    const { id, usable, reason, memoryBytes, freeBytes, preferredDtype } = device;
    check(id === `${backend.info.id}:${n}`, `device ${n} has the id '${id}'; expected '${backend.info.id}:${n}'`);
    check(deviceClasses.includes(device.class), `${id}: class '${device.class}'; expected one of ${deviceClasses.join(', ')}`);
    check(typeof device.name === 'string' && device.name !== '', `${id} has no name`);
    if (!usable) check(reason, `${id} is not usable, and does not say why`);
    if (!usable) return;
    check(Number.isSafeInteger(memoryBytes) && memoryBytes > 0, `${id}: memoryBytes is ${memoryBytes}`);
    check(freeBytes >= 0 && freeBytes <= memoryBytes, `${id}: freeBytes is ${freeBytes} of ${memoryBytes}`);
    check(device.dtypes.length > 0 && device.dtypes.every((dtype) => dtypes.includes(dtype)), `${id}: dtypes ${device.dtypes.join(', ')}`);
    check(device.dtypes.includes(preferredDtype), `${id} prefers ${preferredDtype}, which is not among its ${device.dtypes.join(', ')}`);
  });
} // prettier-ignore

/** Asked again and again, by a server that ranks devices. */
async function devicesAreQuick({ backend }: Kit): Promise<void> {
  await backend.devices();
  const begin = performance.now();
  for (let i = 0; i < 5; i++) await backend.devices();
  const ms = (performance.now() - begin) / 5;
  check(ms < 250, `devices() takes ${Math.round(ms)} ms; expected less than 250`);
}

async function unknownDevicesAreRefused({ backend }: Kit): Promise<void> {
  for (const ids of [[`${backend.info.id}:99`], ['nobody:0'], []]) {
    const error = await backend.open(ids, {}).then(
      (group) => group.close(),
      (refused: unknown) => asTenonError(refused),
    );
    const what = `open([${ids.map((id) => `'${id}'`).join(', ')}])`;
    if (error === undefined) fail(`${what} opens something; expected config.device-not-found`);
    if (error.code !== 'config.device-not-found')
      fail(`${what} fails as ${error.code}: ${error.message}; expected config.device-not-found`);
  }
}

async function constraintsAreSound(kit: Kit): Promise<void> {
  const { constraints } = await kit.group();
  const problem = Object.values(constraintRules(constraints)).find((each) => each !== undefined);
  if (problem !== undefined) fail(`constraints: ${problem}`);
}

function constraintRules(constraints: SchedulingConstraints): Record<string, string | undefined> {
  const { blockSizes, tokenBuckets, decodeBuckets = [], maxTokens, maxSeqs, stepsInFlight } = constraints;
  const counts = (name: string, values: readonly number[]): string | undefined =>
    values.every((value) => Number.isInteger(value) && value > 0) ? undefined : `${name} are ${values.join(', ')}; expected counts`;
  const ascend = (name: string, values: readonly number[]): string | undefined =>
    values.every((value, i) => i === 0 || value > values[i - 1]!) ? undefined : `${name} ${values.join(', ')} do not ascend`;
  const within = (name: string, buckets: readonly number[], max = Infinity): string | undefined =>
    buckets.every((bucket) => bucket <= max) ? undefined : `${name} ${buckets.join(', ')} exceed the maximum of ${max}`;
  return {
    blockSizes: blockSizes.length === 0 ? 'blockSizes are empty' : counts('blockSizes', blockSizes),
    tokenBuckets: counts('tokenBuckets', tokenBuckets) ?? ascend('tokenBuckets', tokenBuckets) ?? within('tokenBuckets', tokenBuckets, maxTokens),
    decodeBuckets: counts('decodeBuckets', decodeBuckets) ?? ascend('decodeBuckets', decodeBuckets) ?? within('decodeBuckets', decodeBuckets, maxSeqs),
    maxima: counts('maxTokens and maxSeqs', [maxTokens ?? 1, maxSeqs ?? 1]),
    stepsInFlight: counts('stepsInFlight', [stepsInFlight]),
    preferred: counts('preferredBatchedTokens', [constraints.preferredBatchedTokens]),
    mixed: typeof constraints.mixedPrefillDecode === 'boolean' ? undefined : 'mixedPrefillDecode is neither true nor false',
    kvLayout: ['paged', 'slots', undefined].includes(constraints.kvLayout) ? undefined : `kvLayout is '${constraints.kvLayout}'; expected paged or slots`,
  };
} // prettier-ignore

/** Two backends and two groups in one process, closed in the order in which they were opened. */
async function severalAtOnce(kit: Kit): Promise<void> {
  const other = kit.module.create(quietHost);
  const groups: DeviceGroup[] = [await kit.open(), await other.open([kit.device.id], {}), await kit.open()];
  for (const group of groups) await group.close();
}
