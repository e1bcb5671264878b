import { describe, expect, it } from 'vitest';
import { BlockTable } from './block-table.js';
import { KvCacheManager } from './kv-cache-manager.js';

const tokens = (count: number, from = 0) => Int32Array.from({ length: count }, (_, i) => from + i);

function managerWith(numBlocks: number, watermarkBlocks = 0): KvCacheManager {
  return new KvCacheManager({ numBlocks, blockSize: 4, watermarkBlocks });
}

/** Computes all of a prompt, and frees it. */
function runThrough(kv: KvCacheManager, tokenIds: Int32Array, extraKey = ''): void {
  const table = new BlockTable(extraKey);
  kv.tryAdmit(table, 0, tokenIds.length, false);
  kv.cacheFullBlocks(table, tokenIds, tokenIds.length);
  kv.free(table);
}

describe('KvCacheManager', () => {
  it('finds the full blocks of a known prefix, but never the last token', () => {
    const kv = managerWith(8);
    runThrough(kv, tokens(10));
    expect(kv.countCachedBlocks(new BlockTable(''), tokens(10), 10)).toBe(2);
    expect(kv.countCachedBlocks(new BlockTable(''), tokens(9), 9)).toBe(2);
    expect(kv.countCachedBlocks(new BlockTable(''), tokens(8), 8)).toBe(1);
    expect(kv.countCachedBlocks(new BlockTable(''), tokens(4), 4)).toBe(0);
  });

  it('tells prefixes apart by every earlier token and by the salt', () => {
    const kv = managerWith(8);
    runThrough(kv, tokens(12));
    const changed = tokens(12);
    changed[1] = 99;
    expect(kv.countCachedBlocks(new BlockTable(''), changed, 12)).toBe(0);
    expect(kv.countCachedBlocks(new BlockTable('salt:a'), tokens(12), 12)).toBe(0);
    changed[1] = 1;
    changed[6] = 99;
    expect(kv.countCachedBlocks(new BlockTable(''), changed, 12)).toBe(1);
  });

  it('shares blocks between tables and frees them when the last one goes', () => {
    const kv = managerWith(8);
    const first = new BlockTable('');
    const second = new BlockTable('');
    kv.tryAdmit(first, 0, 10, false);
    kv.cacheFullBlocks(first, tokens(10), 10);
    const hits = kv.countCachedBlocks(second, tokens(10), 10);
    expect(kv.tryAdmit(second, hits, 10, false)).toBe(true);
    expect([...second.blocks.subarray(0, 2)]).toEqual([...first.blocks.subarray(0, 2)]);
    expect(second.blocks[2]).not.toBe(first.blocks[2]);
    expect(kv.numUsedBlocks).toBe(4);
    kv.free(first);
    expect(kv.numUsedBlocks).toBe(3);
    kv.free(second);
    expect(kv.numUsedBlocks).toBe(0);
  });

  it('evicts the tail of a prompt before its start', () => {
    const kv = managerWith(4);
    runThrough(kv, tokens(16));
    kv.tryAdmit(new BlockTable(undefined), 0, 8, false);
    expect(kv.countCachedBlocks(new BlockTable(''), tokens(16), 16)).toBe(2);
  });

  it('changes nothing when a sequence does not fit, hits among free blocks and the watermark counted', () => {
    const kv = managerWith(4, 1);
    runThrough(kv, tokens(8));
    const table = new BlockTable('');
    const hits = kv.countCachedBlocks(table, tokens(17), 17);
    expect(hits).toBe(2);
    expect(kv.tryAdmit(table, hits, 17, false)).toBe(false);
    expect(kv.tryAdmit(table, hits, 16, true)).toBe(false);
    expect(kv.numFreeBlocks).toBe(4);
    expect(kv.tryAdmit(table, hits, 16, false)).toBe(true);
    expect(kv.tryGrow(table, 17)).toBe(false);
    expect(table.numBlocks).toBe(4);
  });
});
