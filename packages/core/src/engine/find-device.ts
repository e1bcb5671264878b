/** Finds the device that a model runs on: the one that is asked for, or the best of those there are. */
import type { DeviceGroup } from '../backend/index.js';
import { asTenonError, type TenonError } from '../errors.js';
import { chooseDevice, pickDevice, type Assess, type Choice, type ChosenDevice } from '../plugins/choose-device.js'; // prettier-ignore
import type { RuntimeHost, RuntimeOptions } from './engine-runtime.js';

/** Plans the model on an open device, and tells why it would not fit. Throws where there is no valid plan. */
export type PlanOn = (chosen: ChosenDevice, group: DeviceGroup) => Promise<TenonError | undefined>;

export async function findDevice(
  options: RuntimeOptions,
  host: RuntimeHost,
  planOn: PlanOn,
  { explains = false } = {},
): Promise<Choice> {
  const { device } = options.config;
  if (host.backend !== undefined)
    return { ...(await pickDevice(device, host.backend.create(host))), explanation: [] };
  const assess: Assess = async (chosen) => {
    try {
      return { memoryProblem: await planAndClose(options, chosen, planOn) };
    } catch (error) {
      return { planProblem: asTenonError(error) };
    }
  };
  return chooseDevice({ device, reports: options.backends, host, assess, explains });
}

async function planAndClose(
  options: RuntimeOptions,
  chosen: ChosenDevice,
  planOn: PlanOn,
): Promise<TenonError | undefined> {
  const group = await openGroup(options, chosen);
  try {
    return await planOn(chosen, group);
  } finally {
    await group.close();
  }
}

export function openGroup(
  { config }: RuntimeOptions,
  { backend, device }: ChosenDevice,
): Promise<DeviceGroup> {
  return backend.open([device.id], { numThreads: config.numThreads });
}
