interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array;
}

/**
 * y[r, n] = Σk x[r, k] · weight[n, k] (+ bias[n]): x [R, K], weight [N, K] → [R, N]. One f32 accumulator per element, k
 * ascending, each product exact (as a fused multiply-add).
 */
export function linear(x: Matrix, weight: Matrix, bias?: Float32Array): Float32Array {
  const y = new Float32Array(x.rows * weight.rows);
  for (let r = 0; r < x.rows; r++) {
    for (let n = 0; n < weight.rows; n++) {
      const dot = dotRows(x.data, r * x.columns, weight.data, n * x.columns, x.columns);
      y[r * weight.rows + n] = bias === undefined ? dot : dot + bias[n]!;
    }
  }
  return y;
}

/** f32 dot product of two runs of `size` elements. */
export function dotRows(
  a: Float32Array,
  aBegin: number,
  b: Float32Array,
  bBegin: number,
  size: number,
): number {
  let sum = 0;
  for (let k = 0; k < size; k++) sum = Math.fround(sum + a[aBegin + k]! * b[bBegin + k]!);
  return sum;
}
