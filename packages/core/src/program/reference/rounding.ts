/** Rounding of f32 values to 16-bit types, nearest even, kept as f32: what a backend's stores do. */
import type { Dtype } from '../../backend/index.js';

const floats = new Float32Array(1);
const bits = new Uint32Array(floats.buffer);

/** The nearest bf16: the upper half of the f32's bits. NaN and infinities stay. */
export function roundBf16(value: number): number {
  if (!Number.isFinite(value)) return value;
  floats[0] = value;
  const lowestKept = (bits[0]! >>> 16) & 1;
  bits[0] = ((bits[0]! + 0x7fff + lowestKept) & 0xffff0000) >>> 0;
  return floats[0]!;
}

/** The nearest f16: 11 bits, exponents -14 … 15, multiples of 2^-24 below; beyond 65520 infinity. */
export function roundF16(value: number): number {
  if (!Number.isFinite(value) || value === 0) return value;
  const magnitude = Math.abs(value);
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
  const step = 2 ** (exponent - 10);
  const rounded = roundHalfEven(magnitude / step) * step;
  return Math.sign(value) * (rounded > 65504 ? Infinity : rounded);
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Rounds in place to a float type; others are left alone. */
export function roundTo(values: Float32Array, dtype: Dtype): Float32Array {
  if (dtype !== 'bf16' && dtype !== 'f16') return values;
  const round = dtype === 'bf16' ? roundBf16 : roundF16;
  for (let i = 0; i < values.length; i++) values[i] = round(values[i]!);
  return values;
}

/** Bits of values that their 16-bit type holds exactly. */
export function encode16(values: readonly number[], isBf16: boolean): Uint16Array {
  return Uint16Array.from(values, isBf16 ? bf16Bits : f16Bits);
}

function bf16Bits(value: number): number {
  floats[0] = value;
  return bits[0]! >>> 16;
}

function f16Bits(value: number): number {
  floats[0] = value;
  const sign = (bits[0]! >>> 16) & 0x8000;
  if (!Number.isFinite(value)) return sign | (Number.isNaN(value) ? 0x7e00 : 0x7c00);
  const magnitude = Math.abs(value);
  if (magnitude < 2 ** -14) return sign | (magnitude * 2 ** 24);
  return sign | (((bits[0]! >>> 13) & 0x3ffff) - (112 << 10));
}

/** The value of f16 bits. */
export function decodeF16(word: number): number {
  const sign = word & 0x8000 ? -1 : 1;
  const exponent = (word >>> 10) & 31;
  const fraction = word & 0x3ff;
  if (exponent === 31) return fraction ? Number.NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** The value of bf16 bits. */
export function decodeBf16(word: number): number {
  bits[0] = word << 16;
  return floats[0]!;
}
