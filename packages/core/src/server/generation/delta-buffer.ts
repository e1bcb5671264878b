/** `stream_interval`: gathers a choice's deltas until they hold enough tokens; the first and the last go out at once. */
import type { CompletionOutput } from '../../engine/types.js';

export class DeltaBuffer {
  readonly #interval: number;
  readonly #held = new Map<number, CompletionOutput>();
  readonly #started = new Set<number>();

  constructor(interval: number) {
    this.#interval = interval;
  }

  /** What to send now, with all that was held; undefined: nothing yet. */
  push(delta: CompletionOutput): CompletionOutput | undefined {
    if (this.#interval === 1) return delta;
    const joined = join(this.#held.get(delta.index), delta);
    const isFirst = !this.#started.has(delta.index);
    if (!isFirst && delta.finishReason === undefined && joined.tokenIds.length < this.#interval) {
      this.#held.set(delta.index, joined);
      return undefined;
    }
    this.#started.add(delta.index);
    this.#held.delete(delta.index);
    return joined;
  }
}

function join(held: CompletionOutput | undefined, delta: CompletionOutput): CompletionOutput {
  if (held === undefined) return delta;
  return {
    ...delta,
    text: held.text + delta.text,
    tokenIds: [...held.tokenIds, ...delta.tokenIds],
    logprobs: delta.logprobs === undefined ? undefined : [...(held.logprobs ?? []), ...delta.logprobs],
  };
}
