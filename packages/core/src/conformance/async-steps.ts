/** Steps that run one after another outside the caller's turn, as on a device. Shared by the backends of this folder. */
import type { BackendFailure, LoadOptions } from '../backend/index.js';
import { asTenonError } from '../errors.js';

export interface QueuedStep {
  readonly stepId: number;
  /** Fills the result, or throws. */
  readonly execute: () => Promise<void> | void;
}

export class AsyncSteps {
  readonly #onStepDone: LoadOptions['onStepDone'];
  #last: Promise<void> = Promise.resolve();
  #closed = false;
  #inFlight = 0;

  constructor(onStepDone: LoadOptions['onStepDone']) {
    this.#onStepDone = onStepDone;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  enqueue(step: QueuedStep): void {
    this.#inFlight++;
    this.#last = this.#last.then(() => this.#run(step));
  }

  /** Waits for the step that runs. Neither it nor those behind it are reported any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#last;
  }

  async #run({ stepId, execute }: QueuedStep): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#closed) return;
    const failure = await this.#attempt(execute);
    if (this.#closed) return;
    this.#inFlight--;
    this.#onStepDone(stepId, failure);
  }

  async #attempt(execute: QueuedStep['execute']): Promise<BackendFailure | undefined> {
    try {
      await execute();
      return undefined;
    } catch (error) {
      return toFailure(error);
    }
  }
}

function toFailure(error: unknown): BackendFailure {
  const { code, message } = asTenonError(error);
  const isBackendCode = code === 'backend.device-lost' || code === 'backend.out-of-memory';
  return { code: isBackendCode ? code : 'backend.step-failed', message };
}
