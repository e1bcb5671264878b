/** Cases of an op: the pairs of its parameters' values, for each type of programs. */
import type { Dtype, OpName } from '../../../backend/index.js';
import type { ConformanceCase } from '../../case.js';
import { checkOp, type OpCheck } from '../../check-op.js';
import { pairwise } from '../../pairwise.js';
import type { Random } from '../../random.js';

type Row<P extends Record<string, readonly unknown[]>> = { [K in keyof P]: P[K][number] };

export const programDtypes = ['f32', 'bf16', 'f16'] as const satisfies readonly Dtype[];

export function opCases<P extends Record<string, readonly unknown[]>>(
  op: OpName,
  parameters: P,
  random: Random,
  spec: (row: Row<P> & { readonly dtype: Dtype }) => Omit<OpCheck, 'op' | 'dtype'>,
  dtypes: readonly Dtype[] = programDtypes,
): ConformanceCase[] {
  return dtypes.flatMap((dtype) =>
    pairwise(parameters, random).map((row) => ({
      name: `L2/${op}/${dtype}/${describe(row)}`,
      op,
      run: (kit) => checkOp(kit, { op, dtype, ...spec({ ...row, dtype }) }),
    })),
  );
}

const describe = (row: Readonly<Record<string, unknown>>): string =>
  Object.entries(row)
    .map(([name, value]) => `${name}=${value}`)
    .join(',');

/** Numbers of columns around the widths of vectors, and real ones. */
export const oddColumns = [1, 7, 15, 16, 17, 31, 32, 33, 64, 65, 100, 576] as const;
