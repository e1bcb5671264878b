/** Statistics of a list of samples, as vLLM's benchmarks (numpy) define them. */

export interface Summary {
  readonly mean: number;
  readonly median: number;
  /** Of the population. */
  readonly std: number;
  /** By percentile, 0…100, between samples interpolated linearly. */
  readonly percentiles: ReadonlyMap<number, number>;
}

/** Zeros where there are no samples. */
export function summarize(samples: readonly number[], percentiles: readonly number[]): Summary {
  const ascending = Float64Array.from(samples).toSorted();
  return {
    mean: mean(ascending),
    median: percentileOf(ascending, 50),
    std: standardDeviation(ascending),
    percentiles: new Map(percentiles.map((percentile) => [percentile, percentileOf(ascending, percentile)])),
  };
}

export function sum(samples: Iterable<number>): number {
  let total = 0;
  for (const sample of samples) total += sample;
  return total;
}

function mean(samples: Float64Array): number {
  return samples.length === 0 ? 0 : sum(samples) / samples.length;
}

function standardDeviation(samples: Float64Array): number {
  const center = mean(samples);
  return Math.sqrt(mean(samples.map((sample) => (sample - center) ** 2)));
}

function percentileOf(ascending: Float64Array, percentile: number): number {
  if (ascending.length === 0) return 0;
  const position = ((ascending.length - 1) * percentile) / 100;
  const below = Math.floor(position);
  const low = ascending[below]!;
  const high = ascending[Math.min(below + 1, ascending.length - 1)]!;
  return low + (high - low) * (position - below);
}
