import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { arenaAlignment, planMemory, type BufferLifetime } from './memory-plan.js';

const buffers = fc.array(
  fc
    .record({ sizeBytes: fc.integer({ min: 1, max: 5000 }), first: fc.nat(40), length: fc.nat(12) })
    .map(({ sizeBytes, first, length }): BufferLifetime => ({ sizeBytes, first, last: first + length })),
  { maxLength: 40 },
);

it('never overlaps two buffers that live at the same time', () => {
  fc.assert(
    fc.property(buffers, (lifetimes) => {
      const { offsets, arenaBytes } = planMemory(lifetimes);
      lifetimes.forEach((a, i) => {
        expect(offsets[i]! % arenaAlignment).toBe(0);
        expect(offsets[i]! + a.sizeBytes).toBeLessThanOrEqual(arenaBytes);
        for (const [j, b] of lifetimes.entries()) {
          const alive = i < j && a.first <= b.last && b.first <= a.last;
          const apart = offsets[i]! + a.sizeBytes <= offsets[j]! || offsets[j]! + b.sizeBytes <= offsets[i]!;
          if (alive && !apart) throw new Error(`buffers ${i} and ${j} overlap`);
        }
      });
    }),
  );
});

it('needs no more than what lives at once for buffers of one size, and less than all of them', () => {
  const chain = Array.from({ length: 10 }, (_, i) => ({ sizeBytes: 128, first: i, last: i + 1 }));
  expect(planMemory(chain).arenaBytes).toBe(256);
});

it('reuses a gap between two that still live', () => {
  const lifetimes = [
    { sizeBytes: 640, first: 0, last: 9 },
    { sizeBytes: 320, first: 0, last: 1 },
    { sizeBytes: 256, first: 0, last: 9 },
    { sizeBytes: 192, first: 5, last: 6 },
  ];
  expect(planMemory(lifetimes)).toEqual({ offsets: [0, 640, 960, 640], arenaBytes: 1216 });
});
