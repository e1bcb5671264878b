/** Collectives over the values of all ranks, in the order of ranks. Matrices are row-major. */

/** Σ over the ranks, elementwise, accumulated in f32 in the order of ranks. */
export function allReduce(ranks: readonly Float32Array[]): Float32Array {
  const sum = ranks[0]!.slice();
  for (const x of ranks.slice(1)) for (let i = 0; i < sum.length; i++) sum[i]! += x[i]!;
  return sum;
}

/** [rows, n] of each rank → [rows, ranks · n]: their columns side by side. */
export function allGather(ranks: readonly Float32Array[], rows: number): Float32Array {
  const n = ranks[0]!.length / rows;
  const y = new Float32Array(rows * n * ranks.length);
  ranks.forEach((x, rank) => {
    for (let r = 0; r < rows; r++) y.set(x.subarray(r * n, (r + 1) * n), (r * ranks.length + rank) * n);
  });
  return y;
}

/** [rows, ranks · n] of each rank → the columns of `rank` of their sum, [rows, n]. */
export function reduceScatter(ranks: readonly Float32Array[], rows: number, rank: number): Float32Array {
  const sum = allReduce(ranks);
  const columns = sum.length / rows;
  const n = columns / ranks.length;
  const y = new Float32Array(rows * n);
  for (let r = 0; r < rows; r++)
    y.set(sum.subarray(r * columns + rank * n, r * columns + (rank + 1) * n), r * n);
  return y;
}
