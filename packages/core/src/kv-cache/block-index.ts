import { digestWords } from './block-hash.js';

/**
 * Which block holds which content: an open hash table with linear probing, of a fixed size. Typed arrays rather than a
 * map of strings: a million entries cost the garbage collector nothing, a lookup touches two places in memory, and no
 * insertion ever waits for a larger table.
 *
 * Invariant: on the way from an entry's home (the low bits of its digest) to its slot, no slot is empty.
 */
export class BlockIndex {
  /** [numBlocks][digestWords]: of the blocks in the table. */
  readonly #digests: Int32Array;
  /** [a power of two, at least twice numBlocks]: block + 1; 0: empty. */
  readonly #slots: Int32Array;
  readonly #mask: number;
  /** [numBlocks] 1: the block is in the table. */
  readonly #isListed: Uint8Array;

  constructor(numBlocks: number) {
    const numSlots = 2 ** Math.ceil(Math.log2(2 * numBlocks));
    this.#digests = new Int32Array(numBlocks * digestWords);
    this.#slots = new Int32Array(numSlots);
    this.#mask = numSlots - 1;
    this.#isListed = new Uint8Array(numBlocks);
  }

  has(block: number): boolean {
    return this.#isListed[block] === 1;
  }

  /** The block whose content has digest `index` of `digests`. */
  find(digests: Int32Array, index: number): number | undefined {
    const entry = this.#slots[this.#probe(digests, index)]!;
    return entry === 0 ? undefined : entry - 1;
  }

  /** Lists a block under digest `index` of `digests`, unless either of them is listed already. */
  add(block: number, digests: Int32Array, index: number): void {
    if (this.has(block)) return;
    const slot = this.#probe(digests, index);
    if (this.#slots[slot] !== 0) return;
    this.#slots[slot] = block + 1;
    this.#isListed[block] = 1;
    for (let i = 0; i < digestWords; i++) {
      this.#digests[block * digestWords + i] = digests[index * digestWords + i]!;
    }
  }

  remove(block: number): void {
    if (!this.has(block)) return;
    this.#isListed[block] = 0;
    this.#closeGap(this.#probe(this.#digests, block));
  }

  clear(): void {
    this.#slots.fill(0);
    this.#isListed.fill(0);
  }

  /** The slot of a digest, or the empty one where it belongs. */
  #probe(digests: Int32Array, index: number): number {
    let slot = digests[index * digestWords]! & this.#mask;
    for (; ; slot = (slot + 1) & this.#mask) {
      const entry = this.#slots[slot]!;
      if (entry === 0 || this.#equals(entry - 1, digests, index)) return slot;
    }
  }

  #equals(block: number, digests: Int32Array, index: number): boolean {
    const a = block * digestWords;
    const b = index * digestWords;
    for (let i = 0; i < digestWords; i++) if (this.#digests[a + i] !== digests[b + i]) return false;
    return true;
  }

  /** Moves later entries of the run into the emptied slot, as long as that brings none before its home. */
  #closeGap(emptied: number): void {
    let gap = emptied;
    for (let slot = (gap + 1) & this.#mask; this.#slots[slot] !== 0; slot = (slot + 1) & this.#mask) {
      const home = this.#digests[(this.#slots[slot]! - 1) * digestWords]! & this.#mask;
      const fromHome = (slot - home) & this.#mask;
      const fromGap = (slot - gap) & this.#mask;
      if (fromHome < fromGap) continue;
      this.#slots[gap] = this.#slots[slot]!;
      gap = slot;
    }
    this.#slots[gap] = 0;
  }
}
