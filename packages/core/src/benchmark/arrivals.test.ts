import { describe, expect, it } from 'vitest';

import { arrivalOffsetsMs } from './arrivals.js';
import { Random } from './random.js';
import { summarize } from './statistics.js';

const numRequests = 4000;

/** Mean and variation (standard deviation over mean) of the gaps between arrivals. */
function gaps(requestRate: number, burstiness: number): { mean: number; variation: number } {
  const offsets = arrivalOffsetsMs({ numRequests, requestRate, burstiness }, new Random(7));
  const { mean, std } = summarize(
    offsets.map((offset, i) => offset - (offsets[i - 1] ?? 0)),
    [],
  );
  return { mean, variation: std / mean };
}

describe('arrivalOffsetsMs', () => {
  it('sends all at once at an infinite rate', () => {
    expect(arrivalOffsetsMs({ numRequests: 3, requestRate: Infinity, burstiness: 1 }, new Random(0))).toEqual([0, 0, 0]); // prettier-ignore
  });

  it('keeps the rate exactly over the whole run', () => {
    expect(gaps(8, 1).mean).toBeCloseTo(125, 6);
    expect(gaps(8, 0.25).mean).toBeCloseTo(125, 6);
  });

  it('varies as burstiness says: gaps of a gamma distribution, exponential at 1', () => {
    // variation 1 / sqrt(shape); its standard error over 4000 samples is below 4 %
    expect(gaps(8, 1).variation).toBeCloseTo(1, 1);
    expect(gaps(8, 100).variation).toBeCloseTo(0.1, 1);
    expect(gaps(8, 0.25).variation / 2).toBeCloseTo(1, 1);
  });

  it('is ascending, and the same for the same seed', () => {
    const options = { numRequests: 50, requestRate: 3, burstiness: 0.5 };
    const offsets = arrivalOffsetsMs(options, new Random(3));
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
    expect(arrivalOffsetsMs(options, new Random(3))).toEqual(offsets);
    expect(arrivalOffsetsMs(options, new Random(4))).not.toEqual(offsets);
  });
});
