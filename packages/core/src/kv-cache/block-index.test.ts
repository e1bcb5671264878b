import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestWords } from './block-hash.js';
import { BlockIndex } from './block-index.js';

/** Digests that share their homes, so that entries are in each other's way. */
const crowdedDigests = (count: number): Int32Array =>
  Int32Array.from({ length: count * digestWords }, (_, i) =>
    i % digestWords === 0 ? Math.floor(i / digestWords / 4) : Math.floor(i / digestWords),
  );

describe('BlockIndex', () => {
  it('holds what a map holds, under any sequence of additions and removals', () => {
    const digests = crowdedDigests(24);
    const operation = fc.record({
      kind: fc.constantFrom('add', 'add', 'remove', 'clear'),
      block: fc.nat({ max: 11 }),
      digest: fc.nat({ max: 23 }),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 100 }), (operations) => {
        const index = new BlockIndex(12);
        const model = new Map<number, number>();
        for (const { kind, block, digest } of operations) {
          const listed = [...model].find(([, held]) => held === block);
          if (kind === 'add') {
            index.add(block, digests, digest);
            if (listed === undefined && !model.has(digest)) model.set(digest, block);
          } else if (kind === 'remove') {
            index.remove(block);
            if (listed !== undefined) model.delete(listed[0]);
          } else {
            index.clear();
            model.clear();
          }
          for (let i = 0; i < 24; i++) expect(index.find(digests, i)).toBe(model.get(i));
          for (let i = 0; i < 12; i++) expect(index.has(i)).toBe([...model.values()].includes(i));
        }
      }),
    );
  });

  it('compares whole digests', () => {
    const digests = new Int32Array(2 * digestWords);
    digests[2 * digestWords - 1] = 1;
    const index = new BlockIndex(4);
    index.add(3, digests, 0);
    expect(index.find(digests, 0)).toBe(3);
    expect(index.find(digests, 1)).toBeUndefined();
  });
});
