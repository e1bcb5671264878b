/**
 * Checkpoint values as float32: the plain definition of every CheckpointDtype. Block formats as in llama.cpp, `d` and `m`
 * being the block's scale and offset; results are rounded to float32 once, which is exact or what llama.cpp computes.
 */
import type { CheckpointDtype } from '../backend/index.js';
import { invariant } from '../errors.js';
import { blockLayouts } from './tensor-bytes.js';

/** Decodes the block at `byte` of `bytes` to `y[at…]`. */
type DecodeBlock = (bytes: Uint8Array, byte: number, y: Float32Array, at: number) => void;

/** All values of `bytes`, in their order. */
export function dequantize(dtype: CheckpointDtype, bytes: Uint8Array): Float32Array {
  const layout = blockLayouts[dtype];
  const numBlocks = bytes.length / layout.bytes;
  invariant(
    Number.isInteger(numBlocks),
    `${bytes.length} bytes of ${dtype} are no whole blocks of ${layout.bytes}`,
  );
  const y = new Float32Array(numBlocks * layout.elements);
  const decode = decoders[dtype];
  for (let block = 0; block < numBlocks; block++)
    decode(bytes, block * layout.bytes, y, block * layout.elements);
  return y;
}

const u16 = (bytes: Uint8Array, byte: number) => bytes[byte]! | (bytes[byte + 1]! << 8);
const u32 = (bytes: Uint8Array, byte: number) => (u16(bytes, byte) | (u16(bytes, byte + 2) << 16)) >>> 0;
const i8 = (bytes: Uint8Array, byte: number) => (bytes[byte]! << 24) >> 24;
const f16 = (bytes: Uint8Array, byte: number) => halfToFloat(u16(bytes, byte));

/** IEEE half precision: 1 sign, 5 exponent, 10 fraction bits. */
export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const floatBits = new Uint32Array(1);
const floatValue = new Float32Array(floatBits.buffer);

const decodeF32: DecodeBlock = (bytes, byte, y, at) => {
  floatBits[0] = u32(bytes, byte);
  y[at] = floatValue[0]!;
};

const decodeF16: DecodeBlock = (bytes, byte, y, at) => {
  y[at] = f16(bytes, byte);
};

/** The upper half of a float32. */
const decodeBf16: DecodeBlock = (bytes, byte, y, at) => {
  floatBits[0] = (u16(bytes, byte) << 16) >>> 0;
  y[at] = floatValue[0]!;
};

/** d f16, q[16]: low nibbles are elements 0…15, high nibbles 16…31; y = d (q - 8). */
const decodeQ4_0: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte);
  for (let j = 0; j < 16; j++) {
    const q = bytes[byte + 2 + j]!;
    y[at + j] = d * ((q & 15) - 8);
    y[at + 16 + j] = d * ((q >> 4) - 8);
  }
};

/** d f16, m f16, q[16] as in Q4_0; y = d q + m. */
const decodeQ4_1: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte);
  const m = f16(bytes, byte + 2);
  for (let j = 0; j < 16; j++) {
    const q = bytes[byte + 4 + j]!;
    y[at + j] = d * (q & 15) + m;
    y[at + 16 + j] = d * (q >> 4) + m;
  }
};

/** d f16, h u32 (bit i: fifth bit of element i), q[16] as in Q4_0; y = d (q - 16). */
const decodeQ5_0: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte);
  const high = u32(bytes, byte + 2);
  for (let j = 0; j < 16; j++) {
    const q = bytes[byte + 6 + j]!;
    y[at + j] = d * (((q & 15) | (((high >>> j) & 1) << 4)) - 16);
    y[at + 16 + j] = d * (((q >> 4) | (((high >>> (j + 16)) & 1) << 4)) - 16);
  }
};

/** d f16, m f16, h u32, q[16] as in Q5_0; y = d q + m. */
const decodeQ5_1: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte);
  const m = f16(bytes, byte + 2);
  const high = u32(bytes, byte + 4);
  for (let j = 0; j < 16; j++) {
    const q = bytes[byte + 8 + j]!;
    y[at + j] = d * ((q & 15) | (((high >>> j) & 1) << 4)) + m;
    y[at + 16 + j] = d * ((q >> 4) | (((high >>> (j + 16)) & 1) << 4)) + m;
  }
};

/** d f16, q i8[32]; y = d q. */
const decodeQ8_0: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte);
  for (let j = 0; j < 32; j++) y[at + j] = d * i8(bytes, byte + 2 + j);
};

/**
 * scales[16] (low nibble: scale, high: offset, per 16 elements), q[64], d f16, m f16. Each half of 128 elements has 32
 * bytes of q, whose four bit pairs are its four runs of 32; y = d scale q - m offset.
 */
const decodeQ2_K: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte + 80);
  const m = f16(bytes, byte + 82);
  for (let i = 0; i < 256; i++) {
    const scale = bytes[byte + (i >> 4)]!;
    const q = (bytes[byte + 16 + (i >> 7) * 32 + (i & 31)]! >> (((i >> 5) & 3) * 2)) & 3;
    y[at + i] = d * (scale & 15) * q - m * (scale >> 4);
  }
};

/**
 * h[32] (bit b of byte i: third bit of element 32 b + i), q[64] as in Q2_K, scales 16 × 6 bits in 12 bytes, d f16;
 * y = d (scale - 32) (q - 4), with the third bit in q.
 */
const decodeQ3_K: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte + 108);
  for (let i = 0; i < 256; i++) {
    const low = (bytes[byte + 32 + (i >> 7) * 32 + (i & 31)]! >> (((i >> 5) & 3) * 2)) & 3;
    const high = (bytes[byte + (i & 31)]! >> (i >> 5)) & 1;
    y[at + i] = d * (scaleOfQ3_K(bytes, byte + 96, i >> 4) - 32) * ((low | (high << 2)) - 4);
  }
};

/** Scale n of 16: its low 4 bits are a nibble of bytes 0…7, its high 2 bits a pair of bytes 8…11. */
function scaleOfQ3_K(bytes: Uint8Array, byte: number, n: number): number {
  const low = n < 8 ? bytes[byte + n]! & 15 : bytes[byte + n - 8]! >> 4;
  const high = (bytes[byte + 8 + (n & 3)]! >> ((n >> 2) * 2)) & 3;
  return low | (high << 4);
}

/**
 * d f16, m f16, 8 scales and 8 offsets of 6 bits in 12 bytes, q[128]. Each run of 64 elements has 32 bytes of q: low
 * nibbles, then high nibbles; y = d scale q - m offset, scale and offset per 32 elements.
 */
const decodeQ4_K: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte);
  const m = f16(bytes, byte + 2);
  for (let run = 0; run < 8; run++) {
    const scale = d * scaleOfQ4_K(bytes, byte + 4, run);
    const offset = m * offsetOfQ4_K(bytes, byte + 4, run);
    const first = byte + 16 + (run >> 1) * 32;
    for (let j = 0; j < 32; j++) {
      y[at + run * 32 + j] = scale * ((bytes[first + j]! >> ((run & 1) * 4)) & 15) - offset;
    }
  }
};

/** As Q4_K, with h[32] before q (bit b of byte j: fifth bit of element 32 b + j). */
const decodeQ5_K: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte);
  const m = f16(bytes, byte + 2);
  for (let run = 0; run < 8; run++) {
    const scale = d * scaleOfQ4_K(bytes, byte + 4, run);
    const offset = m * offsetOfQ4_K(bytes, byte + 4, run);
    const first = byte + 48 + (run >> 1) * 32;
    for (let j = 0; j < 32; j++) {
      const low = (bytes[first + j]! >> ((run & 1) * 4)) & 15;
      const high = (bytes[byte + 16 + j]! >> run) & 1;
      y[at + run * 32 + j] = scale * (low | (high << 4)) - offset;
    }
  }
};

/** Scale n of 8: 6 bits of byte n, or for n ≥ 4 a low nibble of bytes 8…11 with the top 2 bits of byte n - 4. */
function scaleOfQ4_K(bytes: Uint8Array, byte: number, n: number): number {
  if (n < 4) return bytes[byte + n]! & 63;
  return (bytes[byte + n + 4]! & 15) | ((bytes[byte + n - 4]! >> 6) << 4);
}

/** Offset n of 8: 6 bits of byte n + 4, or for n ≥ 4 a high nibble of bytes 8…11 with the top 2 bits of byte n. */
function offsetOfQ4_K(bytes: Uint8Array, byte: number, n: number): number {
  if (n < 4) return bytes[byte + n + 4]! & 63;
  return (bytes[byte + n + 4]! >> 4) | ((bytes[byte + n]! >> 6) << 4);
}

/**
 * q[128], h[64], scales i8[16], d f16. Each half of 128 elements has 64 bytes of q (low nibbles: its first 64 elements)
 * and 32 bytes of h, whose four bit pairs are the top bits of its four runs of 32; y = d scale (q - 32), scale per 16.
 */
const decodeQ6_K: DecodeBlock = (bytes, byte, y, at) => {
  const d = f16(bytes, byte + 208);
  for (let i = 0; i < 256; i++) {
    const half = i >> 7;
    const run = (i >> 5) & 3;
    const low = (bytes[byte + half * 64 + (i & 63)]! >> ((run >> 1) * 4)) & 15;
    const high = (bytes[byte + 128 + half * 32 + (i & 31)]! >> (run * 2)) & 3;
    y[at + i] = d * i8(bytes, byte + 192 + (i >> 4)) * ((low | (high << 4)) - 32);
  }
};

const decoders: Readonly<Record<CheckpointDtype, DecodeBlock>> = {
  F32: decodeF32,
  F16: decodeF16,
  BF16: decodeBf16,
  Q4_0: decodeQ4_0,
  Q4_1: decodeQ4_1,
  Q5_0: decodeQ5_0,
  Q5_1: decodeQ5_1,
  Q8_0: decodeQ8_0,
  Q2_K: decodeQ2_K,
  Q3_K: decodeQ3_K,
  Q4_K: decodeQ4_K,
  Q5_K: decodeQ5_K,
  Q6_K: decodeQ6_K,
};
