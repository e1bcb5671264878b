import type { ConformanceCase } from '../../case.js';
import type { Random } from '../../random.js';
import { oddColumns, opCases } from './op-cases.js';

/** Rows of a table, repeated ones and the last among them. They are copied, so nothing may be off. */
export function embeddingCases(random: Random): ConformanceCase[] {
  const parameters = { columns: oddColumns, tokens: [1, 3, 17], y: ['f32', 'typed'] } as const;
  return opCases('embedding', parameters, random, ({ columns, tokens, y, dtype }) => ({
    record: (p) => p.table(columns, p.random.normals(p.vocabSize * columns), y === 'f32' ? 'f32' : dtype),
    sizes: { tokens, seqs: 1, length: tokens },
    steps: (giver, p, limits) => {
      const size = Math.min(tokens, limits.maxTokens);
      const ids = Array.from({ length: size }, (_, i) =>
        i % 3 === 0 ? p.vocabSize - 1 : p.random.below(p.vocabSize),
      );
      return [[giver.sequence(size).next(ids)]];
    },
    tolerance: { magnitude: 0 },
  }));
}
