/** Groups of several ranks on one machine, each on a device of its own, or all on the one there is. */
import { randomUUID } from 'node:crypto';
import type { DeviceGroup } from '../backend/index.js';
import { asTenonError } from '../errors.js';
import { notApplicable } from './case.js';
import type { Kit } from './kit.js';

/** Opened together, since opening may wait for the other ranks. Not applicable where the backend refuses. */
export async function openRanks(kit: Kit, size: number): Promise<DeviceGroup[]> {
  const devices = (await kit.backend.devices()).filter(({ usable }) => usable);
  const groupId = randomUUID();
  const opened = await Promise.allSettled(
    Array.from({ length: size }, (_, rank) =>
      kit.backend.open([devices[rank % devices.length]!.id], { parallel: { rank, size, groupId } }),
    ),
  );
  const refused = opened.find((result) => result.status === 'rejected');
  if (refused === undefined)
    return opened.map((result) => (result as PromiseFulfilledResult<DeviceGroup>).value);
  for (const result of opened) if (result.status === 'fulfilled') await result.value.close();
  return notApplicable(`${size} ranks cannot be opened: ${asTenonError(refused.reason).message}`);
}
