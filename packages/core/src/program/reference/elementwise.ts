import { activations, type Activation } from '../../backend/index.js';

interface Rows {
  readonly columns: number;
  readonly data: Float32Array;
}

/** weight[tokenIds[t], :], [T, columns]. */
export function embedding(tokenIds: Int32Array, weight: Rows): Float32Array {
  return gatherRows(weight, tokenIds);
}

/** x[rows[i], :], [rows, columns]. */
export function gatherRows(x: Rows, rows: Int32Array): Float32Array {
  const y = new Float32Array(rows.length * x.columns);
  rows.forEach((row, i) => y.set(x.data.subarray(row * x.columns, (row + 1) * x.columns), i * x.columns));
  return y;
}

export function add(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + b[i]!);
}

/** act(gate) · up. `activation` is a position in `activations`. */
export function gatedAct(gate: Float32Array, up: Float32Array, activation: number): Float32Array {
  const act = activationFunctions[activations[activation]!];
  return gate.map((value, i) => act(value) * up[i]!);
}

const activationFunctions: Readonly<Record<Activation, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

/** Error function, to about 1e-15: a power series near 0, a continued fraction for erfc beyond. */
export function erf(x: number): number {
  const magnitude = Math.abs(x);
  const value = magnitude < 2.5 ? erfSeries(magnitude) : 1 - erfcFraction(magnitude);
  return x < 0 ? -value : value;
}

/** 2/√π · exp(-x²) · Σ (2x²)^n · x / (1·3·…·(2n + 1)): all terms positive, so nothing cancels. */
function erfSeries(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; term > sum * 1e-17; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** exp(-x²)/√π / (x + ½/(x + 1/(x + 1½/(x + …)))), from the inside out. */
function erfcFraction(x: number): number {
  let denominator = x;
  for (let n = 60; n > 0; n--) denominator = x + n / 2 / denominator;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * denominator);
}
