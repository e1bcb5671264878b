/** When requests are sent. */
import type { Random } from './random.js';

export interface ArrivalOptions {
  readonly numRequests: number;
  /** Requests per second; Infinity: all at once. */
  readonly requestRate: number;
  /** 1: a Poisson process; below 1 burstier, above 1 more even (gaps are gamma-distributed with this shape). */
  readonly burstiness: number;
}

/** Milliseconds after the start, ascending. They are scaled so that the last request comes when the rate says. */
export function arrivalOffsetsMs(
  { numRequests, requestRate, burstiness }: ArrivalOptions,
  random: Random,
): number[] {
  if (requestRate === Infinity) return Array.from({ length: numRequests }, () => 0);
  let time = 0;
  const times = Array.from({ length: numRequests }, () => (time += random.gamma(burstiness)));
  const lastMs = (1000 * numRequests) / requestRate;
  return times.map((unscaled) => (unscaled / time) * lastMs);
}
