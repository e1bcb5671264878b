import { invariant } from '../errors.js';
import { BlockIndex } from './block-index.js';

/**
 * Reference-counted KV blocks. Blocks nobody holds are in a free list in the order they will be reused: first those
 * without cached content, then cached ones, least recently used first. A cached block can be taken back by its digest
 * until it is reused. All operations are O(1).
 *
 * The free list is doubly linked through `#next` and `#prev`, with entry `numBlocks` as its head.
 * Invariant: numFree + numUsed = numBlocks, and a block is in the list exactly when its count is 0.
 */
export class BlockPool {
  readonly numBlocks: number;
  /** [numBlocks] */
  readonly #refCounts: Int32Array;
  /** [numBlocks + 1] */
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  readonly #cached: BlockIndex;
  #numFree: number;
  /** Blocks with a count above 0; kept apart from the list, so that the invariant can be seen to hold. */
  #numUsed = 0;

  constructor(numBlocks: number) {
    this.numBlocks = numBlocks;
    this.#refCounts = new Int32Array(numBlocks);
    this.#next = Int32Array.from({ length: numBlocks + 1 }, (_, i) => (i === numBlocks ? 0 : i + 1));
    this.#prev = Int32Array.from({ length: numBlocks + 1 }, (_, i) => (i === 0 ? numBlocks : i - 1));
    this.#cached = new BlockIndex(numBlocks);
    this.#numFree = numBlocks;
  }

  get numFree(): number {
    return this.#numFree;
  }

  get numUsed(): number {
    return this.#numUsed;
  }

  /** Takes the first free block; its cached content, if any, is forgotten. */
  allocate(): number {
    invariant(this.#numFree > 0, 'a block was allocated from an empty pool');
    const block = this.#next[this.numBlocks]!;
    this.#unlink(block);
    this.#cached.remove(block);
    this.#refCounts[block] = 1;
    this.#numUsed++;
    return block;
  }

  /** The block that holds the content of digest `index` of `digests`. */
  find(digests: Int32Array, index: number): number | undefined {
    return this.#cached.find(digests, index);
  }

  isFree(block: number): boolean {
    return this.#refCounts[block] === 0;
  }

  /** One more holder of a cached block. */
  acquire(block: number): void {
    if (this.#refCounts[block]!++ > 0) return;
    this.#unlink(block);
    this.#numUsed++;
  }

  /** One holder less. With the last one the block becomes free: reused soon if it is not cached, late if it is. */
  release(block: number): void {
    invariant(this.#refCounts[block]! > 0, `block ${block} was released too often`);
    if (--this.#refCounts[block]! > 0) return;
    this.#numUsed--;
    const before = this.#cached.has(block) ? this.#prev[this.numBlocks]! : this.numBlocks;
    this.#linkAfter(before, block);
  }

  /** Names a full block by its content, digest `index` of `digests`. The first block of a digest stays its owner. */
  cache(block: number, digests: Int32Array, index: number): void {
    this.#cached.add(block, digests, index);
  }

  /** Forgets all cached content; blocks in use stay in use. */
  forgetAll(): void {
    this.#cached.clear();
  }

  #unlink(block: number): void {
    const next = this.#next[block]!;
    const prev = this.#prev[block]!;
    this.#next[prev] = next;
    this.#prev[next] = prev;
    this.#numFree--;
  }

  #linkAfter(prev: number, block: number): void {
    const next = this.#next[prev]!;
    this.#next[prev] = block;
    this.#prev[block] = prev;
    this.#next[block] = next;
    this.#prev[next] = block;
    this.#numFree++;
  }
}
