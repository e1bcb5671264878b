/** Weights of a case, written to a file: backends map files, and take other ways through them than tests in memory would. */
import { writeFileSync } from 'node:fs';
import type { CheckpointDtype, TensorLocation, WeightSource } from '../backend/index.js';
import { encode16, roundBf16, roundF16 } from '../program/reference/rounding.js';
import { dequantize } from '../weights/dequantize.js';

interface StoredTensor {
  readonly dtype: CheckpointDtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export class WeightFile {
  readonly #tensors = new Map<string, StoredTensor>();

  /** Values as F32, or rounded to BF16 or F16. */
  add(
    name: string,
    shape: readonly number[],
    values: Float32Array,
    dtype: 'F32' | 'BF16' | 'F16' = 'F32',
  ): void {
    this.addBytes(name, shape, dtype, encodeFloats(values, dtype));
  }

  /** A tensor in any format, as its bytes. */
  addBytes(name: string, shape: readonly number[], dtype: CheckpointDtype, bytes: Uint8Array): void {
    this.#tensors.set(name, { dtype, shape, bytes });
  }

  /** A safetensors file where all tensors are plain numbers; block formats, which that has no names for, lie as in GGUF files. */
  write(path: string): WeightSource {
    const header: Record<string, unknown> = {};
    const ordered = this.#ordered();
    let end = 0;
    for (const [name, { dtype, shape, bytes }] of ordered) {
      header[name] = { dtype, shape, data_offsets: [end, (end += bytes.length)] };
    }
    const text = Buffer.from(JSON.stringify(header));
    const head = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, 0x20)]);
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(head.length));
    writeFileSync(path, Buffer.concat([size, head, ...ordered.map(([, { bytes }]) => bytes)]));
    return { locations: this.#locate(path, 8 + head.length), read: async (name) => this.#read(name) };
  }

  /** 4-byte numbers first, so that all are aligned. */
  #ordered(): [string, StoredTensor][] {
    const is32Bit = ([, { dtype }]: [string, StoredTensor]): number => (dtype === 'F32' ? 0 : 1);
    return [...this.#tensors].toSorted((a, b) => is32Bit(a) - is32Bit(b));
  }

  #locate(file: string, begin: number): Map<string, TensorLocation> {
    let offset = begin;
    const locations = new Map<string, TensorLocation>();
    for (const [name, { dtype, shape, bytes }] of this.#ordered()) {
      locations.set(name, { name, file, offset, sizeBytes: bytes.length, dtype, shape });
      offset += bytes.length;
    }
    return locations;
  }

  #read(name: string): Float32Array {
    const { dtype, bytes } = this.#tensors.get(name)!;
    return dequantize(dtype, bytes);
  }
}

function encodeFloats(values: Float32Array, dtype: 'F32' | 'BF16' | 'F16'): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(values.slice().buffer);
  const round = dtype === 'BF16' ? roundBf16 : roundF16;
  return new Uint8Array(encode16(Array.from(values, round), dtype === 'BF16').buffer);
}
