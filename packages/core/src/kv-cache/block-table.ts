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
  /** Hashes of the leading full blocks, as far as they were needed. They outlive the blocks (preemption). */
  readonly hashes: string[] = [];

  /** `extraKey` goes into the first block's hash; undefined: the blocks are neither looked up nor cached. */
  constructor(readonly extraKey: string | undefined) {}

  push(block: number): void {
    if (this.numBlocks === this.blocks.length) {
      const grown = new Int32Array(2 * this.blocks.length);
      grown.set(this.blocks);
      this.blocks = grown;
    }
    this.blocks[this.numBlocks++] = block;
  }

  clear(): void {
    this.numBlocks = 0;
    this.numCachedBlocks = 0;
    this.generation = nextGeneration++;
  }
}
