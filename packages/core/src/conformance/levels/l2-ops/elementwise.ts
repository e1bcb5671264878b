import { activations } from '../../../backend/index.js';
import type { ConformanceCase } from '../../case.js';
import type { Random } from '../../random.js';
import { oddColumns, opCases } from './op-cases.js';

/** a + b: the exact sum, rounded once. */
export function addCases(random: Random): ConformanceCase[] {
  const parameters = { columns: oddColumns, tokens: [1, 5, 33], b: ['f32', 'typed'] } as const;
  return opCases('add', parameters, random, ({ columns, tokens, b, dtype }) => ({
    record: (p) => p.g.add(p.floats(columns), p.rows(columns, b === 'f32' ? 'f32' : dtype)),
    sizes: { tokens, seqs: 1, length: tokens },
    tolerance: { magnitude: 0 },
  }));
}

/** act(gate) · up for each activation, also where it is nearly 0 or nearly the identity. */
export function gatedActCases(random: Random): ConformanceCase[] {
  const parameters = { columns: oddColumns, tokens: [1, 5], activation: activations, scale: [1, 8], y: ['typed', 'f32'] } as const; // prettier-ignore
  return opCases('gated_act', parameters, random, ({ columns, tokens, activation, scale, y, dtype }) => ({
    record: (p) => {
      const operands = { gate: p.floats(columns, scale), up: p.floats(columns) };
      const attrs = { activation: activations.indexOf(activation) };
      return p.g.op('gated_act', operands, attrs, y === 'f32' ? 'f32' : dtype);
    },
    sizes: { tokens, seqs: 1, length: tokens },
    // where 1 + tanh or 1 + erf is nearly 0, its rounding remains
    tolerance: { magnitude: 'absolute', n: 4 },
  }));
}
