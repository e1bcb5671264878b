/** Places buffers in one arena so that no two that live at the same time overlap. */

/** Bytes to which every buffer is aligned: a cache line, and the widest vector. */
export const arenaAlignment = 64;

export interface BufferLifetime {
  readonly sizeBytes: number;
  /** First and last op that touches it, both included. */
  readonly first: number;
  readonly last: number;
}

export interface MemoryPlan {
  /** [buffers], bytes. */
  readonly offsets: readonly number[];
  readonly arenaBytes: number;
}

/** Largest first, each at the lowest offset that is free for its whole life. */
export function planMemory(buffers: readonly BufferLifetime[]): MemoryPlan {
  const offsets = buffers.map(() => 0);
  const placed: number[] = [];
  let arenaBytes = 0;
  const order = buffers
    .map((_, i) => i)
    .toSorted((a, b) => buffers[b]!.sizeBytes - buffers[a]!.sizeBytes || a - b);
  for (const i of order) {
    const buffer = buffers[i]!;
    const taken = placed
      .filter((j) => buffers[j]!.first <= buffer.last && buffer.first <= buffers[j]!.last)
      .map((j) => ({ begin: offsets[j]!, end: offsets[j]! + align(buffers[j]!.sizeBytes) }))
      .toSorted((a, b) => a.begin - b.begin);
    offsets[i] = lowestGap(taken, align(buffer.sizeBytes));
    arenaBytes = Math.max(arenaBytes, offsets[i] + align(buffer.sizeBytes));
    placed.push(i);
  }
  return { offsets, arenaBytes };
}

const align = (bytes: number): number => Math.ceil(bytes / arenaAlignment) * arenaAlignment;

/** The lowest offset with `size` free bytes between ranges, which are sorted by their beginning. */
function lowestGap(taken: readonly { begin: number; end: number }[], size: number): number {
  let offset = 0;
  for (const { begin, end } of taken) {
    if (begin - offset >= size) break;
    offset = Math.max(offset, end);
  }
  return offset;
}
