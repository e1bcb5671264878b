/** Programs of one op: its operands come from embedding tables, so that a step's token ids choose their rows. */
import type { CheckpointDtype, Dtype, WeightScheme } from '../backend/index.js';
import { GraphBuilder, type Value } from '../program/graph-builder.js';
import type { Program } from '../program/program.js';
import { blockLayouts } from '../weights/tensor-bytes.js';
import { epsOf } from './compare.js';
import type { Random } from './random.js';
import { WeightFile } from './weight-file.js';

export class OpProgram {
  readonly g: GraphBuilder;
  readonly weights = new WeightFile();
  readonly random: Random;
  /** Rows of the embedding tables: token ids that steps may have. */
  readonly vocabSize: number;
  readonly #schemes = new Map<string, WeightScheme>();
  #numTables = 0;

  constructor(dtype: Dtype, random: Random, vocabSize = 64) {
    this.g = new GraphBuilder(dtype);
    this.random = random;
    this.vocabSize = vocabSize;
  }

  /**
   * f32 [T, columns]: row t is row tokenIds[t] of a table. In 16-bit programs tables hold 16-bit numbers, so the sum of two
   * gives numbers with more digits.
   */
  floats(columns: number, scale = 1): Value {
    const coarse = this.table(columns, this.random.normals(this.vocabSize * columns, scale), 'f32');
    if (this.g.dtype === 'f32') return coarse;
    const eps = epsOf[this.g.dtype];
    return this.g.add(
      coarse,
      this.table(columns, this.random.normals(this.vocabSize * columns, scale * eps), 'f32'),
    );
  }

  /** The same in the program's own type, as it is in the table. */
  typed(columns: number, scale = 1): Value {
    return this.table(columns, this.random.normals(this.vocabSize * columns, scale), this.g.dtype);
  }

  /** f32 or the program's type. */
  rows(columns: number, dtype: Dtype, scale = 1): Value {
    return dtype === 'f32' ? this.floats(columns, scale) : this.typed(columns, scale);
  }

  /** [T, columns] of given values [vocabSize, columns], rounded to the program's type. */
  table(columns: number, values: Float32Array, dtype: Dtype): Value {
    const weight = this.matrix(`table${this.#numTables++}`, this.vocabSize, columns, values);
    return this.g.op('embedding', { tokenIds: this.g.input('tokenIds'), weight }, {}, dtype);
  }

  matrix(
    name: string,
    numRows: number,
    columns: number,
    values = this.random.normals(numRows * columns),
    dtype: 'F32' | 'BF16' | 'F16' = 'F32',
  ): Value {
    this.weights.add(name, [numRows, columns], values, dtype);
    return this.g.matrix(name, numRows, columns);
  }

  /** A matrix in a GGUF block format, to be held in `scheme`. */
  blockMatrix(
    name: string,
    numRows: number,
    columns: number,
    format: CheckpointDtype,
    scheme: WeightScheme,
  ): Value {
    const { elements, bytes } = blockLayouts[format];
    const numBlocks = (numRows * columns) / elements;
    this.weights.addBytes(
      name,
      [numRows, columns],
      format,
      randomBlocks(this.random, numBlocks, bytes, format),
    );
    this.#schemes.set(name, scheme);
    return this.g.matrix(name, numRows, columns);
  }

  vector(name: string, values: Float32Array): Value {
    this.weights.add(name, [values.length], values);
    return this.g.vector(name, values.length);
  }

  finish(): Program {
    const program = this.g.finish();
    const weights = program.weights.map((weight) => ({ ...weight, scheme: this.#schemes.get(weight.name) }));
    return { ...program, weights };
  }
}

/** Where a block's f16 scales (and minima) are; the other bytes may be anything. */
const scaleBytes: Readonly<Partial<Record<CheckpointDtype, readonly number[]>>> = {
  Q4_0: [0],
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_0: [0],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
};

/** f16 of about 1/128 … 1/16, of both signs: exponents 8 to 11. */
function randomBlocks(random: Random, numBlocks: number, bytes: number, format: CheckpointDtype): Uint8Array {
  const data = Uint8Array.from({ length: numBlocks * bytes }, () => random.below(256));
  for (let block = 0; block < numBlocks; block++) {
    for (const at of scaleBytes[format] ?? []) {
      const half = ((8 + random.below(4)) << 10) | random.below(1024) | (random.below(2) << 15);
      data[block * bytes + at] = half & 0xff;
      data[block * bytes + at + 1] = half >> 8;
    }
  }
  return data;
}
