/** Comparison of results with derived tolerances; the worst element is what a person needs to see. */
import type { Dtype } from '../backend/index.js';
import { fail, type WorstElement } from './case.js';

/** Distance from 1 to the next number of a type. */
export const epsOf: Readonly<Record<Dtype, number>> = {
  f32: 2 ** -23,
  bf16: 2 ** -7,
  f16: 2 ** -10,
  i32: 0,
  state: 0,
};

const smallestExponent: Readonly<Partial<Record<Dtype, number>>> = { f32: -126, bf16: -126, f16: -14 };

/** What rounding to the nearest number of a type may change a value by: half the distance between its neighbours. */
export function roundingOf(value: number, dtype: Dtype): number {
  const magnitude = Math.abs(value);
  if (magnitude === 0 || !Number.isFinite(magnitude)) return 0;
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), smallestExponent[dtype] ?? 0);
  return (2 ** exponent * epsOf[dtype]) / 2;
}

export interface Compared {
  readonly of: string;
  readonly columns: number;
  readonly got: ArrayLike<number>;
  readonly expected: ArrayLike<number>;
  /** By element. */
  readonly tolerance: (index: number) => number;
}

/** The worst element, if any is off by more than its tolerance. NaN and infinities must be equal. */
export function findWorst({ of, columns, got, expected, tolerance }: Compared): WorstElement | undefined {
  let worst = -1;
  let worstExcess = 0;
  let numWrong = 0;
  for (let i = 0; i < expected.length; i++) {
    if (Object.is(got[i], expected[i]) || got[i] === expected[i]) continue;
    const off = Math.abs(got[i]! - expected[i]!);
    const excess = Number.isFinite(off) ? off / tolerance(i) : Infinity;
    if (excess <= 1) continue;
    numWrong++;
    if (worst < 0 || excess > worstExcess) [worst, worstExcess] = [i, excess];
  }
  if (worst < 0) return undefined;
  return {
    of,
    row: Math.floor(worst / columns),
    column: worst % columns,
    got: got[worst] ?? Number.NaN,
    expected: expected[worst]!,
    tolerance: tolerance(worst),
    numWrong,
    numElements: expected.length,
  };
}

/** Fails with the worst element. */
export function expectClose(compared: Compared, where: string, op?: Parameters<typeof fail>[1]): void {
  if (compared.got.length !== compared.expected.length)
    fail(
      `${where}: ${compared.of} has ${compared.got.length} values; expected ${compared.expected.length}`,
      op,
    );
  const worst = findWorst(compared);
  if (worst !== undefined) fail(`${where}: ${describeWorst(worst)}`, { ...op, worst });
}

export function expectEqual(
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  columns: number,
  of: string,
  where: string,
): void {
  expectClose({ of, columns, got, expected, tolerance: () => 0 }, where);
}

/** `y[3, 17] is 0.25; expected 0.5 ± 1e-6 (40 of 512 elements are wrong)`. */
export function describeWorst({
  of,
  row,
  column,
  got,
  expected,
  tolerance,
  numWrong,
  numElements,
}: WorstElement): string {
  const number = (value: number): string => (Number.isInteger(value) ? String(value) : value.toPrecision(7));
  const bound = tolerance === 0 ? '' : ` ± ${tolerance.toPrecision(2)}`;
  const count = `${numWrong} of ${numElements} elements ${numWrong === 1 ? 'is' : 'are'} wrong`;
  return `${of}[${row}, ${column}] is ${number(got)}; expected ${number(expected)}${bound} (${count})`;
}
