/** Steps of `plain-step.ts`, run one at a time on an executable. */
import { resultWords, stepHeader, type Executable, type StepHeaderField } from '../../src/backend/index.js';
import { encodeStep, type PlainStep } from '../../src/conformance/plain-step.js';
import { decodeRows } from '../../src/conformance/step-runner.js';

export {
  encodeStep,
  type PlainRow,
  type PlainSequence,
  type PlainStep,
} from '../../src/conformance/plain-step.js';

/** A step's result as plain lists, one entry per logit row. */
export interface PlainResult {
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
  readonly ranks: readonly number[];
  readonly topIds: readonly (readonly number[])[];
  readonly topLogprobs: readonly (readonly number[])[];
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
  return { ...decodeRows(result, { L, K }), outputs: result.subarray(resultWords(L, K)) };
}
