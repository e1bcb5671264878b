import type { ConformanceCase } from '../../case.js';
import type { PlainRow } from '../../plain-step.js';
import type { Random } from '../../random.js';
import { oddColumns, opCases } from './op-cases.js';

/** Rows of the step's logits: none, one, some, all of them, and more than the head computes at a time. */
export function gatherRowsCases(random: Random): ConformanceCase[] {
  const parameters = { columns: oddColumns, rows: ['none', 'last', 'some', 'all'], tokens: [5, 33, 70], x: ['f32', 'typed'] } as const; // prettier-ignore
  return opCases('gather_rows', parameters, random, ({ columns, rows, tokens, x, dtype }) => ({
    record: (p) => {
      const source =
        x === 'f32' ? p.floats(columns) : p.table(columns, p.random.normals(p.vocabSize * columns), dtype);
      return p.g.gatherRows(source, p.g.input('logitRows'));
    },
    sizes: { tokens, seqs: 1, length: tokens },
    steps: (giver, p, { maxTokens }) => {
      const size = Math.min(tokens, maxTokens);
      const sequence = giver.sequence(size);
      return [[sequence.next(p.random.ints(size, p.vocabSize), chosenRows(rows, size))]];
    },
    tolerance: { magnitude: 0 },
  }));
}

function chosenRows(which: 'none' | 'last' | 'some' | 'all', tokens: number): PlainRow[] {
  const all = Array.from({ length: tokens }, (_, token) => ({ token, mode: 0, numLogprobs: -1 }));
  if (which === 'last') return all.slice(-1);
  if (which === 'some') return all.filter(({ token }) => token % 3 === 1);
  return which === 'all' ? all : [];
}
