import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestWords } from './block-hash.js';
import { BlockPool } from './block-pool.js';

/** Digest i is i, and each name is one of them. */
const digests = Int32Array.from({ length: 256 * digestWords }, (_, i) => Math.floor(i / digestWords));
const [a, b, c] = [1, 2, 3];

describe('BlockPool', () => {
  it('evicts the least recently used cached block first, and uncached ones before any cached one', () => {
    const pool = new BlockPool(4);
    const blocks = [0, 1, 2, 3].map(() => pool.allocate());
    pool.cache(blocks[0]!, digests, a);
    pool.cache(blocks[1]!, digests, b);
    pool.cache(blocks[2]!, digests, c);
    for (const i of [1, 0, 3, 2]) pool.release(blocks[i]!);
    expect([0, 1, 2, 3].map(() => pool.allocate())).toEqual([blocks[3], blocks[1], blocks[0], blocks[2]]);
    expect([a, b, c].map((name) => pool.find(digests, name))).toEqual([undefined, undefined, undefined]);
  });

  it('keeps a cached block usable until it is reused', () => {
    const pool = new BlockPool(2);
    const block = pool.allocate();
    pool.cache(block, digests, a);
    pool.release(block);
    expect(pool.find(digests, a)).toBe(block);
    pool.acquire(block);
    expect(pool.numFree).toBe(1);
    expect(pool.allocate()).not.toBe(block);
    pool.release(block);
    expect(pool.allocate()).toBe(block);
    expect(pool.find(digests, a)).toBeUndefined();
  });

  it('keeps free + used = total, and hands no block out twice, under any sequence of operations', () => {
    const operation = fc.record({
      kind: fc.constantFrom('allocate', 'release', 'cache', 'acquire'),
      pick: fc.nat(),
    });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.array(operation, { maxLength: 200 }),
        (numBlocks, operations) => {
          const pool = new BlockPool(numBlocks);
          const holders: number[] = [];
          const named: number[] = [];
          operations.forEach(({ kind, pick }, i) => {
            const held = holders[pick % Math.max(1, holders.length)];
            if (kind === 'allocate' && pool.numFree > 0) {
              const block = pool.allocate();
              expect(holders).not.toContain(block);
              holders.push(block);
            } else if (kind === 'release' && held !== undefined) {
              holders.splice(holders.indexOf(held), 1);
              pool.release(held);
            } else if (kind === 'cache' && held !== undefined) {
              pool.cache(held, digests, i);
              named.push(i);
            } else if (kind === 'acquire') {
              const block = pool.find(digests, named[pick % Math.max(1, named.length)] ?? 255);
              if (block !== undefined) {
                pool.acquire(block);
                holders.push(block);
              }
            }
            expect(pool.numUsed).toBe(new Set(holders).size);
            expect(pool.numFree + pool.numUsed).toBe(numBlocks);
          });
          for (const block of holders) pool.release(block);
          expect(pool.numFree).toBe(numBlocks);
        },
      ),
    );
  });
});
