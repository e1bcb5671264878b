/** Steps of `plain-step.ts`, run one at a time on an executable. */
import {
  resultHeaderWords,
  resultWords,
  stepHeader,
  type Executable,
  type StepHeaderField,
} from '../../src/backend/index.js';
import { encodeStep, type PlainStep } from '../../src/conformance/plain-step.js';

export {
  encodeStep,
  type PlainRow,
  type PlainSequence,
  type PlainStep,
} from '../../src/conformance/plain-step.js';

/** A step's result as plain lists, one entry per logit row. */
export interface PlainResult {
  readonly tokens: number[];
  readonly logprobs: number[];
  readonly ranks: number[];
  readonly topIds: number[][];
  readonly topLogprobs: number[][];
  /** What the plan's other outputs hold. */
  readonly outputs: Int32Array;
}

/** Runs single steps on an executable and waits for each. `onStepDone` goes into its LoadOptions. */
export class PlainRunner {
  #done: (error: { code: string; message: string } | undefined) => void = () => {};
  executable!: Executable;

  readonly onStepDone = (_: number, error?: { code: string; message: string }): void => this.#done(error);

  async run(step: PlainStep, outputWords = 0): Promise<PlainResult> {
    const words = encodeStep(step);
    const field = (name: StepHeaderField): number => words[stepHeader.indexOf(name)]!;
    const L = field('numLogitRows');
    const K = field('maxTopLogprobs');
    const result = new Int32Array(resultWords(L, K) + outputWords);
    const ended = new Promise<{ code: string; message: string } | undefined>(
      (resolve) => (this.#done = resolve),
    );
    this.executable.run(words, result);
    const failure = await ended;
    if (failure !== undefined) throw new Error(`${failure.code}: ${failure.message}`);
    return decodeResult(result, L, K);
  }
}

function decodeResult(result: Int32Array, L: number, K: number): PlainResult {
  const floats = new Float32Array(result.buffer);
  const ints = (at: number, size: number): number[] => Array.from(result.subarray(at, at + size));
  const reals = (at: number, size: number): number[] => Array.from(floats.subarray(at, at + size));
  const ids = resultHeaderWords + 3 * L;
  const perRow = <T>(read: (row: number) => T): T[] => Array.from({ length: L }, (_, row) => read(row));
  return {
    tokens: ints(resultHeaderWords, L),
    logprobs: reals(resultHeaderWords + L, L),
    ranks: ints(resultHeaderWords + 2 * L, L),
    topIds: perRow((row) => ints(ids + row * K, K)),
    topLogprobs: perRow((row) => reals(ids + L * K + row * K, K)),
    outputs: result.subarray(resultWords(L, K)),
  };
}
