/** Ticks per timeout: what hangs is noticed between one timeout and a quarter more. */
const ticksPerTimeout = 4;

/**
 * Notices that the core has gone quiet while it owes an answer. It counts the ticks of one coarse timer, so that neither
 * a busy main thread nor a machine that slept looks like a hang; the timer runs only while an answer is owed.
 */
export class StepWatchdog {
  readonly #timeoutMs: number;
  readonly #onHang: () => void;
  #timer: NodeJS.Timeout | undefined = undefined;
  #isOwed = false;
  #numQuietTicks = 0;

  /** `timeoutMs` Infinity: never. */
  constructor(timeoutMs: number, onHang: () => void) {
    this.#timeoutMs = timeoutMs;
    this.#onHang = onHang;
  }

  /** The core was told something that it answers. */
  expect(): void {
    if (this.#isOwed || this.#timeoutMs === Infinity) return;
    this.#isOwed = true;
    this.#numQuietTicks = 0;
    this.#timer ??= setInterval(() => this.#tick(), this.#timeoutMs / ticksPerTimeout).unref();
  }

  /** The core has answered, and owes more or not. */
  heard(owesMore: boolean): void {
    this.#numQuietTicks = 0;
    this.#isOwed &&= owesMore;
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#isOwed = false;
  }

  /** The first tick may come at once, so one more than a timeout's ticks have to be quiet. */
  #tick(): void {
    if (!this.#isOwed) this.stop();
    else if (++this.#numQuietTicks > ticksPerTimeout) {
      this.stop();
      this.#onHang();
    }
  }
}
