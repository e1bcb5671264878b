import { existsSync } from 'node:fs';
import { expect, it } from 'vitest';
import { findMatch, lacksHardware, pciDevices } from './pci-devices.js';

const present = ['8086:1234', '1da3:1020', '1da3:1030'];
const match = (...pci: string[]) => findMatch([{ class: 'npu', pci }], present);

it('finds the hardware that a manifest names, the exact name first', () => {
  expect(match('1da3:*')).toEqual({ id: '1da3:1020', isExact: false });
  expect(match('1da3:*', '1da3:1030')).toEqual({ id: '1da3:1030', isExact: true });
  expect(match('1002:*', '8086:9999')).toBeUndefined();
  expect(match()).toBeUndefined();
});

it('knows hardware to be absent where the manifest names some and the machine has a list', () => {
  const lacks = (...pci: string[]) => lacksHardware([{ class: 'npu', pci }], present);
  expect(lacks('1002:*', '8086:9999')).toBe(true);
  expect(lacks('1002:*', '8086:1234')).toBe(false);
  expect(lacks()).toBe(false);
  expect(lacksHardware([], present)).toBe(false);
  expect(
    lacksHardware(
      [
        { class: 'npu', pci: ['1002:*'] },
        { class: 'cpu', pci: [] },
      ],
      present,
    ),
  ).toBe(false);
  expect(lacksHardware([{ class: 'npu', pci: ['1002:*'] }], [])).toBe(false);
});

it.runIf(existsSync('/sys/bus/pci/devices'))('reads what this machine has', () => {
  for (const id of pciDevices()) expect(id).toMatch(/^[0-9a-f]{4}:[0-9a-f]{4}$/);
});
