/** Reads an encoded step (see backend/step.ts): counts, regions as typed arrays, ragged lists. */
import {
  stepHeader, stepHeaderWords, stepMagic, stepRegionNames, stepRegions, stepVersion,
  type StepHeaderField, type StepRegion,
} from '../../backend/index.js'; // prettier-ignore
import { TenonError } from '../../errors.js';

type IntRegion = { [R in StepRegion]: (typeof stepRegions)[R] extends 'i' ? R : never }[StepRegion];
type FloatRegion = Exclude<StepRegion, IntRegion>;

export class StepReader {
  readonly stepId: number;
  readonly numTokens: number;
  readonly numSeqs: number;
  readonly numLogitRows: number;
  readonly blockTableStride: number;
  readonly maxTopLogprobs: number;
  readonly numHistorySeqs: number;
  readonly captureKey: number;
  readonly #words: Int32Array;
  readonly #floats: Float32Array;

  /** Throws backend.step-failed where the words are no step. */
  constructor(words: Int32Array) {
    const header = (field: StepHeaderField): number => words[stepHeader.indexOf(field)]!;
    if (
      words.length < stepHeaderWords ||
      header('magic') !== stepMagic ||
      header('version') !== stepVersion
    ) {
      throw new TenonError('backend.step-failed', `not a step of version ${stepVersion}`);
    }
    if (header('sizeWords') > words.length) {
      const message = `the step says it has ${header('sizeWords')} words; its buffer has ${words.length}`;
      throw new TenonError('backend.step-failed', message);
    }
    this.#words = words;
    this.#floats = new Float32Array(words.buffer, words.byteOffset, words.length);
    this.stepId = header('stepId');
    this.numTokens = header('numTokens');
    this.numSeqs = header('numSeqs');
    this.numLogitRows = header('numLogitRows');
    this.blockTableStride = header('blockTableStride');
    this.maxTopLogprobs = header('maxTopLogprobs');
    this.numHistorySeqs = header('numHistorySeqs');
    this.captureKey = header('captureKey');
  }

  has(region: StepRegion): boolean {
    return this.#offset(region) !== 0;
  }

  /** `size` values of a region. Throws backend.step-failed where the step lacks them. */
  ints(region: IntRegion, size: number): Int32Array {
    return this.#words.subarray(...this.#range(region, size));
  }

  floats(region: FloatRegion, size: number): Float32Array {
    return this.#floats.subarray(...this.#range(region, size));
  }

  /** A per-row list's values for one of `rows` rows; empty where the step has no such list. */
  list(offsets: IntRegion, values: IntRegion, rows: number, row: number): Int32Array {
    const [begin, end] = this.#listRange(offsets, rows, row);
    return begin === end ? new Int32Array(0) : this.ints(values, end).subarray(begin);
  }

  floatList(offsets: IntRegion, values: FloatRegion, rows: number, row: number): Float32Array {
    const [begin, end] = this.#listRange(offsets, rows, row);
    return begin === end ? new Float32Array(0) : this.floats(values, end).subarray(begin);
  }

  /** The blocks of a sequence. */
  blockTable(seq: number): Int32Array {
    const begin = seq * this.blockTableStride;
    return this.ints('blockTables', begin + this.blockTableStride).subarray(begin);
  }

  /** A logit row's 64-bit seed. */
  seed(row: number): bigint {
    const word = (region: 'seedLow' | 'seedHigh'): bigint =>
      BigInt(this.ints(region, this.numLogitRows)[row]! >>> 0);
    return (word('seedHigh') << 32n) | word('seedLow');
  }

  /** [numTokens] sequence of each token; -1 for padding. */
  tokenSeqs(): Int32Array {
    const seqs = new Int32Array(this.numTokens).fill(-1);
    if (this.numSeqs === 0) return seqs;
    const cuSeqlensQ = this.ints('cuSeqlensQ', this.numSeqs + 1);
    for (let s = 0; s < this.numSeqs; s++) seqs.fill(s, cuSeqlensQ[s], cuSeqlensQ[s + 1]);
    return seqs;
  }

  #offset(region: StepRegion): number {
    return this.#words[stepHeader.length + stepRegionNames.indexOf(region)]!;
  }

  #range(region: StepRegion, size: number): [number, number] {
    const offset = this.#offset(region);
    if (size > 0 && (offset < stepHeaderWords || offset + size > this.#words.length)) {
      throw new TenonError(
        'backend.step-failed',
        `the step lacks ${region}, or its ${size} words do not fit`,
      );
    }
    return [offset, offset + size];
  }

  #listRange(offsets: IntRegion, rows: number, row: number): [number, number] {
    if (!this.has(offsets)) return [0, 0];
    const bounds = this.ints(offsets, rows + 1);
    return [bounds[row]!, bounds[row + 1]!];
  }
}
