export interface StopScan {
  /** Text that is certain not to be part of a stop string. */
  readonly text: string;
  /** The stop string that ended it. Nothing may follow. */
  readonly stop: string | undefined;
}

/**
 * Looks for stop strings in growing text. The first one to be complete ends it, whatever pieces the text comes in; of
 * two that end at the same character, the one listed first. Holds back the last max(length) - 1 characters, which might
 * begin a stop string, unless the stop string belongs to the output.
 */
export class StopStringScanner {
  readonly #stops: readonly string[];
  readonly #include: boolean;
  readonly #numHeld: number;
  /** The end of the text so far, of at most `#numHeld` characters (one more to keep a surrogate pair whole). */
  #tail = '';

  constructor(stops: readonly string[], includeStopStrInOutput: boolean) {
    this.#stops = stops;
    this.#include = includeStopStrInOutput;
    this.#numHeld = Math.max(0, ...stops.map((stop) => stop.length - 1));
  }

  push(text: string): StopScan {
    const window = this.#tail + text;
    const found = this.#firstToEnd(window);
    if (found !== undefined) return this.#cut(window, found);
    const certain = this.#endOfCertain(window);
    const emitted = this.#include ? text : window.slice(0, certain);
    this.#tail = window.slice(certain);
    return { text: emitted, stop: undefined };
  }

  /** What was held back, when the text ends otherwise. */
  flush(): string {
    const held = this.#include ? '' : this.#tail;
    this.#tail = '';
    return held;
  }

  #cut(window: string, found: { stop: string; end: number }): StopScan {
    const alreadyOut = this.#include ? this.#tail.length : 0;
    const end = this.#include ? found.end : found.end - found.stop.length;
    this.#tail = '';
    return { text: window.slice(alreadyOut, end), stop: found.stop };
  }

  #firstToEnd(window: string): { stop: string; end: number } | undefined {
    let first: { stop: string; end: number } | undefined;
    for (const stop of this.#stops) {
      const index = window.indexOf(stop);
      const end = index + stop.length;
      if (index >= 0 && (first === undefined || end < first.end)) first = { stop, end };
    }
    return first;
  }

  #endOfCertain(window: string): number {
    const end = Math.max(0, window.length - this.#numHeld);
    const splitsPair = end > 0 && end < window.length && isHighSurrogate(window.charCodeAt(end - 1));
    return splitsPair ? end - 1 : end;
  }
}

const isHighSurrogate = (unit: number): boolean => unit >= 0xd800 && unit < 0xdc00;
