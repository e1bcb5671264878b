import { BlockHasher } from './block-hash.js';
import { BlockPool } from './block-pool.js';
import type { BlockTable } from './block-table.js';

export interface KvCacheOptions {
  readonly numBlocks: number;
  /** Tokens per block. */
  readonly blockSize: number;
  /** Blocks that admitting a sequence must leave free, while others run. */
  readonly watermarkBlocks: number;
}

/**
 * Gives sequences their blocks and finds blocks that already hold their tokens.
 *
 * A full block may be shared from the moment its tokens are scheduled: steps run in order, and within a step every
 * layer's KV is written before it is read.
 */
export class KvCacheManager {
  readonly blockSize: number;
  readonly #pool: BlockPool;
  readonly #hasher: BlockHasher;
  readonly #watermarkBlocks: number;

  constructor(options: KvCacheOptions) {
    this.blockSize = options.blockSize;
    this.#pool = new BlockPool(options.numBlocks);
    this.#hasher = new BlockHasher(options.blockSize);
    this.#watermarkBlocks = options.watermarkBlocks;
  }

  get numBlocks(): number {
    return this.#pool.numBlocks;
  }

  get numFreeBlocks(): number {
    return this.#pool.numFree;
  }

  get numUsedBlocks(): number {
    return this.#pool.numUsed;
  }

  /** Leading blocks of the tokens that are cached; at most numTokens - 1 tokens, as the last one's logits are needed. */
  countCachedBlocks(table: BlockTable, tokenIds: Int32Array, numTokens: number): number {
    if (table.extraKey === undefined) return 0;
    const most = Math.floor((numTokens - 1) / this.blockSize);
    let count = 0;
    table.reserveDigests(most);
    while (count < most && this.#isCached(table, tokenIds, count)) count++;
    return count;
  }

  /**
   * Gives an empty table its `numCachedBlocks` cached blocks and fresh ones for the rest of `numTokens`, or leaves
   * everything as it is when they don't fit. `keepWatermark`: other sequences run and will need blocks.
   */
  tryAdmit(table: BlockTable, numCachedBlocks: number, numTokens: number, keepWatermark: boolean): boolean {
    const total = Math.ceil(numTokens / this.blockSize);
    let taken = total - numCachedBlocks;
    for (let i = 0; i < numCachedBlocks; i++) if (this.#pool.isFree(this.#cachedBlock(table, i))) taken++;
    const reserve = keepWatermark ? this.#watermarkBlocks : 0;
    if (taken + reserve > this.#pool.numFree) return false;

    for (let i = 0; i < numCachedBlocks; i++) {
      const block = this.#cachedBlock(table, i);
      this.#pool.acquire(block);
      table.push(block);
    }
    table.numCachedBlocks = numCachedBlocks;
    while (table.numBlocks < total) table.push(this.#pool.allocate());
    return true;
  }

  /** Makes room for `numTokens` tokens; false, with nothing changed, when there are too few free blocks. */
  tryGrow(table: BlockTable, numTokens: number): boolean {
    const missing = Math.ceil(numTokens / this.blockSize) - table.numBlocks;
    if (missing <= 0) return true;
    if (missing > this.#pool.numFree) return false;
    for (let i = 0; i < missing; i++) table.push(this.#pool.allocate());
    return true;
  }

  /** Offers the blocks that `numTokens` known and scheduled tokens fill to the prefix cache. */
  cacheFullBlocks(table: BlockTable, tokenIds: Int32Array, numTokens: number): void {
    if (table.extraKey === undefined) return;
    while ((table.numCachedBlocks + 1) * this.blockSize <= numTokens) {
      const index = table.numCachedBlocks++;
      this.#hashUpTo(table, tokenIds, index);
      this.#pool.cache(table.blocks[index]!, table.digests, index);
    }
  }

  /** Gives all blocks back, the tail first, so that the start of a prompt is evicted last. */
  free(table: BlockTable): void {
    for (let i = table.numBlocks - 1; i >= 0; i--) this.#pool.release(table.blocks[i]!);
    table.clear();
  }

  /** Forgets all cached prefixes. Running sequences keep their blocks. */
  resetPrefixCache(): void {
    this.#pool.forgetAll();
  }

  #isCached(table: BlockTable, tokenIds: Int32Array, index: number): boolean {
    this.#hashUpTo(table, tokenIds, index);
    return this.#pool.find(table.digests, index) !== undefined;
  }

  #cachedBlock(table: BlockTable, index: number): number {
    return this.#pool.find(table.digests, index)!;
  }

  #hashUpTo(table: BlockTable, tokenIds: Int32Array, index: number): void {
    table.reserveDigests(index + 1);
    for (; table.numDigests <= index; table.numDigests++) {
      const extra = table.numDigests === 0 ? table.extraKey! : '';
      this.#hasher.hash(table.digests, tokenIds, table.numDigests, extra);
    }
  }
}
