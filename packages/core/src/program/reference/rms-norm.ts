/** x / sqrt(mean(x²) + eps) · weight over rows of `size`; the mean in double. */
export function rmsNorm(x: Float32Array, weight: Float32Array, size: number, eps: number): Float32Array {
  const y = new Float32Array(x.length);
  for (let begin = 0; begin < x.length; begin += size) {
    let squares = 0;
    for (let i = 0; i < size; i++) squares += x[begin + i]! ** 2;
    const scale = 1 / Math.sqrt(squares / size + eps);
    for (let i = 0; i < size; i++) y[begin + i] = x[begin + i]! * scale * weight[i]!;
  }
  return y;
}
