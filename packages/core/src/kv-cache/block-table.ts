import { digestWords } from './block-hash.js';

let nextGeneration = 1;

/** A sequence's blocks, in order: token i lives in `blocks[floor(i / blockSize)]`. Only the KV-cache manager changes it. */
export class BlockTable {
  /** [capacity]; the first `numBlocks` count. */
  blocks = new Int32Array(8);
  numBlocks = 0;
  /** Changes whenever the table starts afresh, so that copies of its rows know when they are stale. */
  generation = nextGeneration++;
  /** Leading blocks that were offered to the prefix cache. */
  numCachedBlocks = 0;
  /** [capacity][digestWords]: digests of the leading full blocks, as far as they were needed. They outlive the blocks (preemption). */
  digests = new Int32Array(0);
  numDigests = 0;

  /** `extraKey` goes into the first block's digest; undefined: the blocks are neither looked up nor cached. */
  constructor(readonly extraKey: string | undefined) {}

  push(block: number): void {
    if (this.numBlocks === this.blocks.length) {
      const grown = new Int32Array(2 * this.blocks.length);
      grown.set(this.blocks);
      this.blocks = grown;
    }
    this.blocks[this.numBlocks++] = block;
  }

  /** Makes room for `count` digests. */
  reserveDigests(count: number): void {
    if (count * digestWords <= this.digests.length) return;
    const grown = new Int32Array(Math.max(count * digestWords, 2 * this.digests.length));
    grown.set(this.digests);
    this.digests = grown;
  }

  clear(): void {
    this.numBlocks = 0;
    this.numCachedBlocks = 0;
    this.generation = nextGeneration++;
  }
}
