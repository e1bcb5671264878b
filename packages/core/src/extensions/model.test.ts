import { expect, it } from 'vitest';
import type { TensorLocation } from '../backend/index.js';
import { cutRows } from './model.js';

/** 6 rows of 32 weights in blocks of 34 bytes. */
const qkv: TensorLocation = {
  name: 'qkv',
  file: 'model.gguf',
  offset: 1000,
  sizeBytes: 6 * 34,
  dtype: 'Q8_0',
  shape: [6, 32],
};

it('cuts rows where they lie in the file, quantized ones too', () => {
  const parts = cutRows(qkv, [
    { name: 'q', rows: 4 },
    { name: 'k', rows: 1 },
    { name: 'v', rows: 1 },
  ]);
  expect(parts).toEqual([
    { ...qkv, name: 'q', offset: 1000, sizeBytes: 136, shape: [4, 32] },
    { ...qkv, name: 'k', offset: 1136, sizeBytes: 34, shape: [1, 32] },
    { ...qkv, name: 'v', offset: 1170, sizeBytes: 34, shape: [1, 32] },
  ]);
});

it('cuts vectors', () => {
  const bias = { ...qkv, dtype: 'F32', sizeBytes: 24, shape: [6] } as const;
  expect(cutRows(bias, [{ name: 'a', rows: 2 }, { name: 'b', rows: 4 }])).toMatchObject([
    { name: 'a', offset: 1000, sizeBytes: 8, shape: [2] },
    { name: 'b', offset: 1008, sizeBytes: 16, shape: [4] },
  ]); // prettier-ignore
});

it.each([
  [[4, 1], 'expected 5: 4 of part0, 1 of part1'],
  [[4, 3], 'expected 7: 4 of part0, 3 of part1'],
])('refuses to cut 6 rows into %j', (rows, expected) => {
  const parts = rows.map((count, i) => ({ name: `part${i}`, rows: count }));
  expect(() => cutRows(qkv, parts)).toThrow(`model.gguf: qkv [6, 32] has 6 rows; ${expected}`);
});
