import { describe, expect, it } from 'vitest';

import { summarize } from './statistics.js';

describe('summarize', () => {
  it('interpolates percentiles between samples, as numpy does', () => {
    // numpy.percentile([15, 20, 35, 40, 50], [5, 40, 50, 95, 100])
    const { percentiles, median } = summarize([40, 15, 50, 20, 35], [5, 40, 50, 95, 100]);
    expect([...percentiles.values()]).toEqual([16, 29, 35, 48, 50]);
    expect(median).toBe(35);
  });

  it('takes the standard deviation of the population, and the mean of the middle two', () => {
    const { mean, std, median } = summarize([2, 4, 4, 4, 5, 5, 7, 9], []);
    expect([mean, std, median]).toEqual([5, 2, 4.5]);
  });

  it('orders by value, not by spelling', () => {
    expect(summarize([9, 10, 100], []).median).toBe(10);
  });

  it('gives zeros for no samples', () => {
    const { mean, median, std, percentiles } = summarize([], [99]);
    expect([mean, median, std, percentiles.get(99)]).toEqual([0, 0, 0, 0]);
  });
});
