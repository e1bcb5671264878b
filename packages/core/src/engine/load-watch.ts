import { TenonError } from '../errors.js';

/** Ends the wait for a load that makes no progress: a device that hangs must not leave its user waiting. */
export class LoadWatch {
  readonly #timeoutMs: number;
  #timer: NodeJS.Timeout | undefined = undefined;
  #onHang: (error: TenonError) => void = () => {};

  /** `timeoutMs` Infinity: waits for any time. */
  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** The load goes on. */
  progress(): void {
    this.#timer?.refresh();
  }

  /** What `loading` gives, or backend.load-failed after the time without progress. */
  async wait<T>(loading: Promise<T>): Promise<T> {
    if (this.#timeoutMs === Infinity) return loading;
    const hang = new Promise<never>((_, reject) => (this.#onHang = reject));
    this.#timer = setTimeout(() => this.#onHang(this.#hung()), this.#timeoutMs);
    try {
      return await Promise.race([loading, hang]);
    } finally {
      clearTimeout(this.#timer);
    }
  }

  #hung(): TenonError {
    const seconds = this.#timeoutMs / 1000;
    const message = `loading made no progress for ${seconds} s: the device or the disk hangs; if it is that slow, raise --load-timeout`;
    return new TenonError('backend.load-failed', message);
  }
}
