import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { checkpointDtypes, type CheckpointDtype } from '../backend/index.js';
import { dequantize, halfToFloat } from './dequantize.js';

/** Blocks and their values as the gguf package of PyPI computes them; see make-dequantize-blocks.py. */
const fixture = new URL('../../tests/fixtures/dequantize-blocks.json', import.meta.url);
const cases = JSON.parse(readFileSync(fixture, 'utf8')) as {
  dtype: CheckpointDtype;
  bytes: string;
  float32: string;
}[];

describe('dequantize', () => {
  it('has a recorded case for every format', () => {
    expect(cases.map((block) => block.dtype)).toEqual([...checkpointDtypes]);
  });

  it.each(cases)('equals the gguf package bit for bit: $dtype', ({ dtype, bytes, float32 }) => {
    const values = dequantize(dtype, Buffer.from(bytes, 'base64'));
    expect(Buffer.from(values.buffer).toString('base64')).toBe(float32);
  });

  it('reads every kind of half', () => {
    expect([0x0000, 0x0001, 0x03ff, 0x0400, 0x3c00, 0xc000, 0x7bff].map(halfToFloat)).toEqual([
      0,
      2 ** -24,
      1023 * 2 ** -24,
      2 ** -14,
      1,
      -2,
      65504,
    ]);
    expect(halfToFloat(0x8000)).toBe(-0);
    expect([halfToFloat(0x7c00), halfToFloat(0xfc00), halfToFloat(0x7e00)]).toEqual([
      Infinity,
      -Infinity,
      NaN,
    ]);
  });
});
