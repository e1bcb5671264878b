import { compareSequences, type Sequence } from './sequence.js';

/**
 * Waiting sequences in order of service, as a binary heap. A preempted sequence comes back to its old place because it
 * keeps its arrival. Each sequence knows its place, so that any can leave in O(log n).
 */
export class WaitingQueue {
  readonly #heap: Sequence[] = [];
  #numTokens = 0;

  get size(): number {
    return this.#heap.length;
  }

  /** Tokens of all that wait. */
  get numTokens(): number {
    return this.#numTokens;
  }

  peek(): Sequence | undefined {
    return this.#heap[0];
  }

  push(sequence: Sequence): void {
    this.#numTokens += sequence.numTokens;
    this.#place(sequence, this.#heap.length);
    this.#rise(sequence);
  }

  remove(sequence: Sequence): void {
    this.#numTokens -= sequence.numTokens;
    const last = this.#heap.pop()!;
    if (last === sequence) return;
    this.#place(last, sequence.index);
    this.#rise(last);
    this.#sink(last);
  }

  #place(sequence: Sequence, index: number): void {
    this.#heap[index] = sequence;
    sequence.index = index;
  }

  #rise(sequence: Sequence): void {
    while (sequence.index > 0) {
      const parent = this.#heap[(sequence.index - 1) >> 1]!;
      if (compareSequences(parent, sequence) <= 0) return;
      this.#swap(parent, sequence);
    }
  }

  #sink(sequence: Sequence): void {
    for (;;) {
      const left = this.#heap[2 * sequence.index + 1];
      const right = this.#heap[2 * sequence.index + 2];
      const child = right !== undefined && compareSequences(right, left!) < 0 ? right : left;
      if (child === undefined || compareSequences(sequence, child) <= 0) return;
      this.#swap(sequence, child);
    }
  }

  #swap(above: Sequence, below: Sequence): void {
    const index = above.index;
    this.#place(above, below.index);
    this.#place(below, index);
  }
}
