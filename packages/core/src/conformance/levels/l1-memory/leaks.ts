/** Opening, loading and closing, over and over: all memory and all threads come back. */
import type { ConformanceCase } from '../../case.js';
import type { Kit } from '../../kit.js';
import { expectNoLeak, type LeakOptions } from '../../leak.js';
import { tinyLoad } from './tiny-load.js';

export function leakCases(): ConformanceCase[] {
  return [
    { name: 'L1/memory/open-and-close', run: openAndClose },
    { name: 'L1/memory/load-and-close', run: loadAndClose },
  ];
}

const leakOptions = (kit: Kit, rounds: number, bytesPerRound: number): LeakOptions => ({
  rounds,
  bytesPerRound,
  freeBytes: async () => (await kit.backend.devices()).find(({ id }) => id === kit.device.id)!.freeBytes,
  freeBytesAreShared: kit.device.memoryIsShared === true || kit.device.class === 'cpu',
});

async function openAndClose(kit: Kit): Promise<void> {
  const round = async (): Promise<void> => (await kit.open()).close();
  await expectNoLeak('open and close', round, leakOptions(kit, 100, 24 * 1024));
}

/** Weights, cache and workspace are some hundred KiB each, and are used. */
async function loadAndClose(kit: Kit): Promise<void> {
  const group = await kit.group();
  const load = await tinyLoad(kit);
  const round = async (): Promise<void> => {
    const { runner, step } = await load(group);
    await runner.enqueue(step);
    await runner.close();
  };
  await expectNoLeak('load, run and close', round, leakOptions(kit, 50, 48 * 1024));
}
