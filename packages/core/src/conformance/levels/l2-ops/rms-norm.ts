import type { ConformanceCase } from '../../case.js';
import type { Random } from '../../random.js';
import { oddColumns, opCases } from './op-cases.js';

/** Whole rows, where small x make eps count, and heads of a row. */
export function rmsNormCases(random: Random): ConformanceCase[] {
  const whole = { columns: oddColumns, tokens: [1, 5], eps: [1e-5, 1e-6], scale: [1, 1e-3, 300], y: ['f32', 'typed'] } as const; // prettier-ignore
  const heads = {
    headDim: [8, 16, 64, 80, 128],
    numHeads: [1, 3],
    eps: [1e-5, 1e-6],
    scale: [1, 1e-3],
  } as const;
  return [
    ...opCases('rms_norm', whole, random, ({ columns, tokens, eps, scale, y, dtype }) => ({
      record: (p) =>
        p.g.rmsNorm(p.floats(columns, scale), p.vector('weight', p.random.normals(columns)), {
          eps,
          dtype: y === 'f32' ? 'f32' : dtype,
        }),
      sizes: { tokens, seqs: 1, length: tokens },
      tolerance: { magnitude: 'row', n: columns },
    })),
    ...opCases('rms_norm', heads, random, ({ headDim, numHeads, eps, scale }) => ({
      record: (p) => {
        const weight = p.vector('weight', p.random.normals(headDim));
        return p.g.rmsNorm(p.floats(numHeads * headDim, scale), weight, { eps, size: headDim, dtype: 'f32' });
      },
      sizes: { tokens: 3, seqs: 1, length: 3 },
      tolerance: { magnitude: 'row', n: headDim },
    })),
  ];
}
