import type { RequestOutput } from './types.js';

/** What a stream reads from: the request behind it. */
export interface OutputSource {
  /** Begins the request; called once, with the first `next`. */
  start(onNews: () => void): void;
  /** The next output, if there is one; throws what the request failed with. */
  take(): RequestOutput | undefined;
  /** The consumer has left before the end. */
  leave(): void;
}

/**
 * A request's outputs for one consumer. Unlike an async generator, it can be left while a `next` is pending: that one
 * then ends the iteration.
 */
export class RequestStream implements AsyncIterableIterator<RequestOutput> {
  readonly #source: OutputSource;
  #isStarted = false;
  #isDone = false;
  #waiting:
    { resolve(result: IteratorResult<RequestOutput>): void; reject(error: unknown): void } | undefined;

  constructor(source: OutputSource) {
    this.#source = source;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<RequestOutput>> {
    return new Promise((resolve, reject) => {
      if (this.#isDone) return resolve({ done: true, value: undefined });
      this.#waiting = { resolve, reject };
      if (this.#isStarted) return this.#answer();
      this.#isStarted = true;
      this.#source.start(() => this.#answer());
    });
  }

  async return(): Promise<IteratorResult<RequestOutput>> {
    const wasRunning = !this.#isDone;
    this.#isDone = true;
    if (wasRunning && this.#isStarted) this.#source.leave();
    this.#waiting?.resolve({ done: true, value: undefined });
    this.#waiting = undefined;
    return { done: true, value: undefined };
  }

  #answer(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    try {
      const output = this.#source.take();
      if (output === undefined) return;
      this.#isDone = output.finished;
      this.#waiting = undefined;
      waiting.resolve({ done: false, value: output });
    } catch (error) {
      this.#isDone = true;
      this.#waiting = undefined;
      waiting.reject(error);
    }
  }
}
