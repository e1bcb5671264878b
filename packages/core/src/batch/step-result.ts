import { resultHeader, resultHeaderWords, resultWords } from '../backend/index.js';

/** Room for a step's result, and a reader of it. Grows when a step wants more than any before it. */
export class StepResult {
  words = new Int32Array(0);
  #floats = new Float32Array(0);
  #numRows = 0;
  #topCount = 0;

  /** The buffer to hand to the backend for L rows with K top logprobs. */
  prepare(numLogitRows: number, maxTopLogprobs: number): Int32Array {
    const needed = resultWords(numLogitRows, maxTopLogprobs);
    if (needed > this.words.length) {
      this.words = new Int32Array(2 * needed);
      this.#floats = new Float32Array(this.words.buffer);
    }
    this.#numRows = numLogitRows;
    this.#topCount = maxTopLogprobs;
    return this.words.subarray(0, needed);
  }

  get stepId(): number {
    return this.words[resultHeader.indexOf('stepId')]!;
  }

  /** 0: the step went well. */
  get status(): number {
    return this.words[resultHeader.indexOf('status')]!;
  }

  get computeTimeUs(): number {
    return this.words[resultHeader.indexOf('computeTimeUs')]!;
  }

  get idleTimeUs(): number {
    return this.words[resultHeader.indexOf('idleTimeUs')]!;
  }

  token(row: number): number {
    return this.words[resultHeaderWords + row]!;
  }

  logprob(row: number): number {
    return this.#floats[resultHeaderWords + this.#numRows + row]!;
  }

  rank(row: number): number {
    return this.words[resultHeaderWords + 2 * this.#numRows + row]!;
  }

  topId(row: number, i: number): number {
    return this.words[resultHeaderWords + 3 * this.#numRows + row * this.#topCount + i]!;
  }

  topLogprob(row: number, i: number): number {
    return this.#floats[resultHeaderWords + (3 + this.#topCount) * this.#numRows + row * this.#topCount + i]!;
  }
}
