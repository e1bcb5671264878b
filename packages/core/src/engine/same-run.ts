/** A run that takes the place of another: on the same device, with the same sizes. */
import type { EngineConfig } from '../config/engine-options.js';
import { TenonError } from '../errors.js';
import type { RuntimeInfo } from './engine-runtime.js';

/** Options that leave nothing to what is free now. */
export function sameRunConfig(config: EngineConfig, { device, numBlocks }: RuntimeInfo): EngineConfig {
  return { ...config, device: device.id, numGpuBlocksOverride: numBlocks };
}

/** Requests were accepted by the first run's sizes, so a second one of others is refused. */
export function checkSameRun(first: RuntimeInfo, second: RuntimeInfo): void {
  const [before, after] = [sizesOf(first), sizesOf(second)];
  if (before === after) return;
  const message = `device ${first.device.id} came back different, with ${after} instead of ${before}`;
  throw new TenonError('backend.device-lost', message);
}

function sizesOf({ device, dtype, numBlocks, maxModelLen, limits }: RuntimeInfo): string {
  return JSON.stringify({ device: device.id, dtype, numBlocks, maxModelLen, ...limits });
}
