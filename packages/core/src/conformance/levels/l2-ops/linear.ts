/** Products with a matrix: alone, added to a residual, or gated; of plain numbers and of quantized matrices. */
import {
  activations,
  type CheckpointDtype,
  type Dtype,
  type OpName,
  type WeightScheme,
} from '../../../backend/index.js';
import type { Value } from '../../../program/graph-builder.js';
import { joinSchemes } from '../../../program/weight-schemes.js';
import type { ConformanceCase } from '../../case.js';
import type { OpProgram } from '../../op-program.js';
import type { Random } from '../../random.js';
import { opCases } from './op-cases.js';

const columns = [1, 7, 16, 31, 32, 33, 64, 100, 576] as const;
const rows = [1, 15, 16, 17, 48, 100] as const;
const tokens = [1, 2, 5, 33] as const;

export function linearCases(random: Random): ConformanceCase[] {
  return [...plainCases(random), ...fileTypeCases(random), ...quantizedCases(random)];
}

function plainCases(random: Random): ConformanceCase[] {
  const parameters = { k: columns, n: rows, tokens, bias: [false, true] } as const;
  const gated = { ...parameters, activation: activations, y: ['typed', 'f32'] } as const;
  const linear = { ...parameters, y: ['f32', 'typed'] } as const;
  return [
    ...opCases('linear', linear, random, ({ k, n, tokens: size, bias, y, dtype }) => ({
      record: (p) => {
        const weight = p.matrix('weight', n, k);
        const operands = { x: p.rows(k, dtype), weight, bias: biasOf(p, n, bias) };
        return p.g.op('linear', operands, {}, y === 'f32' ? 'f32' : dtype);
      },
      sizes: { tokens: size, seqs: 1, length: size },
      tolerance: { magnitude: 'absolute', n: k },
    })),
    ...opCases('linear_add', parameters, random, ({ k, n, tokens: size, bias, dtype }) => ({
      record: (p) => linearAdd(p, p.rows(k, dtype), p.matrix('weight', n, k), n, bias),
      sizes: { tokens: size, seqs: 1, length: size },
      tolerance: { magnitude: 'absolute', n: k },
    })),
    ...opCases('linear_gated', gated, random, ({ k, n, tokens: size, bias, activation, y, dtype }) => ({
      record: (p) => {
        const scale = 1 / Math.sqrt(k);
        const weight = p.matrix('weight', 2 * n, k, p.random.normals(2 * n * k, scale));
        const operands = { x: p.rows(k, dtype), weight, bias: biasOf(p, 2 * n, bias) };
        const attrs = { activation: activations.indexOf(activation) };
        return p.g.op('linear_gated', operands, attrs, y === 'f32' ? 'f32' : dtype);
      },
      sizes: { tokens: size, seqs: 1, length: size },
      tolerance: { magnitude: 'absolute', n: k, factor: 8 },
    })),
  ];
}

const biasOf = (p: OpProgram, n: number, has: boolean): Value | undefined =>
  has ? p.vector('bias', p.random.normals(n)) : undefined;

function linearAdd(p: OpProgram, x: Value, weight: Value, n: number, bias: boolean): Value {
  return p.g.op('linear_add', { x, weight, residual: p.floats(n), bias: biasOf(p, n, bias) }, {});
}

/** Matrices whose file holds another type than the program computes in: they are converted, to the nearest even number. */
function fileTypeCases(random: Random): ConformanceCase[] {
  const parameters = { file: ['F32', 'BF16', 'F16'], k: [33, 64] } as const;
  return opCases('linear', parameters, random, ({ file, k, dtype }) => ({
    record: (p) => {
      const weight = p.matrix('weight', 17, k, undefined, file);
      return p.g.linear(p.rows(k, dtype), weight);
    },
    sizes: { tokens: 3, seqs: 1, length: 3 },
    tolerance: { magnitude: 'absolute', n: k },
  }));
}

const formats: readonly CheckpointDtype[] = [
  'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K',
]; // prettier-ignore
const schemes: Readonly<Partial<Record<CheckpointDtype, WeightScheme>>> = {
  Q4_0: 'int4:g32', Q4_1: 'int4:g32:min', Q5_0: 'int8:g32', Q5_1: 'int8:g32:min', Q8_0: 'int8:g32',
  Q2_K: 'int8:g16:min', Q3_K: 'int8:g16', Q4_K: 'int4:g32:min', Q5_K: 'int8:g32:min', Q6_K: 'int8:g16',
}; // prettier-ignore

/** What activations may lose where they become integers for a quantized product: 2^-7 of the largest of a group for 8 bits. */
const quantizedActivationEps = 2 ** -7;
/** Rounding the products of a K format's scales to f16. */
const scaleEps = 2 ** -10;

function quantizedCases(random: Random): ConformanceCase[] {
  const parameters = { format: formats, tokens: [1, 3, 18], n: [16, 33] } as const;
  const make = (op: OpName) =>
    opCases(op, parameters, random, ({ format, tokens: size, n, dtype }) => {
      const k = format.endsWith('_K') ? 512 : 160;
      return {
        record: (p) => quantized(p, op, format, dtype, n, k),
        sizes: { tokens: size, seqs: 1, length: size },
        tolerance: { magnitude: 'absolute', eps: quantizedActivationEps + scaleEps, factor: op === 'linear_gated' ? 2 : 1, n: 1 / k },
      };
    }, ['f32', 'bf16']); // prettier-ignore
  return [...make('linear'), ...make('linear_add'), ...make('linear_gated')];
}

function quantized(
  p: OpProgram,
  op: OpName,
  format: CheckpointDtype,
  dtype: Dtype,
  n: number,
  k: number,
): Value {
  const numRows = op === 'linear_gated' ? 2 * n : n;
  const weight = p.blockMatrix('weight', numRows, k, format, joinSchemes([schemes[format]])!);
  const x = p.rows(k, dtype, op === 'linear_gated' ? 0.05 : 1);
  if (op === 'linear_add') return linearAdd(p, x, weight, n, false);
  return p.g.op(op, { x, weight }, op === 'linear_gated' ? { activation: 0 } : {});
}
