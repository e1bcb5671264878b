/** The hardware of this machine, as far as manifests can name it. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DeviceMatch } from './manifest.js';

/** Linux's list. Elsewhere nothing is known. */
const folder = '/sys/bus/pci/devices';

/** `vendor:device` of every PCI device, in hexadecimal. */
export function pciDevices(): readonly string[] {
  if (!existsSync(folder)) return [];
  const read = (slot: string, file: string): string =>
    readFileSync(join(folder, slot, file), 'utf8')
      .trim()
      .replace(/^0x/, '');
  return [...new Set(readdirSync(folder).map((slot) => `${read(slot, 'vendor')}:${read(slot, 'device')}`))];
}

/** What of the hardware a manifest names, the exact name first; undefined: nothing, or it names none. */
export function findMatch(
  matches: readonly DeviceMatch[],
  present: readonly string[],
): { readonly id: string; readonly isExact: boolean } | undefined {
  const named = matches.flatMap(({ pci }) => pci);
  const exact = present.find((id) => named.includes(id));
  if (exact !== undefined) return { id: exact, isExact: true };
  const ofVendor = present.find((id) => named.includes(`${id.split(':')[0]}:*`));
  return ofVendor === undefined ? undefined : { id: ofVendor, isExact: false };
}

/** Whether the hardware that a manifest names is known not to be here. Not where it names none, or this machine has no list. */
export function lacksHardware(matches: readonly DeviceMatch[], present: readonly string[]): boolean {
  const namesHardware = matches.length > 0 && matches.every(({ pci }) => pci.length > 0);
  return namesHardware && present.length > 0 && findMatch(matches, present) === undefined;
}
