import { describe, expect, it } from 'vitest';

import { parsePsTime, processUsage } from './process-usage.js';

describe('processUsage', () => {
  it('sees memory and CPU time grow', () => {
    const before = processUsage(process.pid);
    const bytes = Buffer.alloc(64 << 20, 1);
    for (const end = performance.now() + 60; performance.now() < end;) bytes[0]!++;
    const after = processUsage(process.pid);
    expect(after.residentBytes - before.residentBytes).toBeGreaterThan(48 << 20);
    expect(after.cpuMs - before.cpuMs).toBeGreaterThanOrEqual(20);
    expect(after.cpuMs).toBeLessThan(3_600_000);
  });
});

describe('parsePsTime', () => {
  it.each([
    ['0:01.25', 1250],
    ['01:02:03', 3_723_000],
    ['2-00:00:01', 172_801_000],
  ])('reads %s', (time, ms) => expect(parsePsTime(time)).toBe(ms));
});
