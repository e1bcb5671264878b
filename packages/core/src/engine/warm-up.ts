import type { BackendFailure, Executable } from '../backend/index.js';
import { StepResult } from '../batch/step-result.js';
import { StepWriter, type StepWriterOptions } from '../batch/step-writer.js';
import { TenonError } from '../errors.js';

/** Counts of a step of padding. */
interface Shape {
  readonly numTokens: number;
  readonly numSeqs: number;
}

/**
 * Runs a step of padding for every bucket, so that a device compiles, records and allocates what it needs before anything is
 * served; then freezes the executable.
 */
export class WarmUp {
  readonly #options: StepWriterOptions;
  readonly #timeoutMs: number;
  #onDone: (error?: BackendFailure) => void = () => {};

  constructor(options: StepWriterOptions, timeoutMs: number) {
    this.#options = options;
    this.#timeoutMs = timeoutMs;
  }

  /** The backend's word that the step has ended. */
  stepDone(error?: BackendFailure): void {
    this.#onDone(error);
  }

  /** Throws the failure of a step, or backend.device-lost where one takes too long. */
  async run(executable: Pick<Executable, 'run' | 'freeze'>): Promise<void> {
    const writer = new StepWriter(this.#options);
    const result = new StepResult();
    let stepId = 0;
    for (const { numTokens, numSeqs } of shapesOf(this.#options)) {
      const words = writer.writePadding(numTokens, numSeqs, --stepId);
      const failure = await this.#runStep(executable, words, result.prepare(numSeqs, 0));
      if (failure === undefined) continue;
      const step = `a step of ${numTokens} tokens and ${numSeqs} sequences`;
      throw new TenonError(failure.code, `warm-up with ${step}: ${failure.message}`);
    }
    executable.freeze?.();
  }

  #runStep(
    executable: Pick<Executable, 'run'>,
    words: Int32Array,
    result: Int32Array,
  ): Promise<BackendFailure | undefined> {
    return new Promise((resolve) => {
      const message = `no answer for ${this.#timeoutMs / 1000} s; if the device is that slow, raise --step-timeout`;
      const timer = setTimeout(() => resolve({ code: 'backend.device-lost', message }), this.#timeoutMs);
      this.#onDone = (error) => {
        clearTimeout(timer);
        resolve(error);
      };
      executable.run(words, result);
    });
  }
}

/** Largest first, so that a lack of memory shows at once. Without buckets, the largest step there is. */
function shapesOf({
  tokenBuckets,
  decodeBuckets = [],
  maxNumBatchedTokens,
  maxNumSeqs,
}: StepWriterOptions): Shape[] {
  const prompts = tokenBuckets.length === 0 ? [maxNumBatchedTokens] : upTo(maxNumBatchedTokens, tokenBuckets);
  const decodes = upTo(maxNumSeqs, decodeBuckets);
  return [
    ...prompts.toReversed().map((numTokens) => ({ numTokens, numSeqs: 1 })),
    ...decodes.toReversed().map((numSeqs) => ({ numTokens: numSeqs, numSeqs })),
  ];
}

/** The buckets that counts up to `most` are padded to. */
const upTo = (most: number, buckets: readonly number[]): readonly number[] =>
  buckets.filter((_, i) => i === 0 || buckets[i - 1]! < most);
