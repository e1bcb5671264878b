/** Sends requests when they are due, as many at once as allowed. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { RequestTrace } from './request-trace.js';
import type { BenchRequest } from './requests.js';
import { streamRequest, type Target } from './stream-client.js';

export interface LoadOptions {
  /** When each is due, in milliseconds from the start, ascending. */
  readonly offsetsMs: readonly number[];
  readonly maxConcurrency: number;
  readonly onDone?: (trace: RequestTrace, numDone: number) => void;
}

export interface LoadResult {
  readonly traces: readonly RequestTrace[];
  readonly durationMs: number;
}

/** Traces are in the order of the requests. A request that waits for its turn is timed from when it is sent. */
export async function runLoad(
  target: Target,
  requests: readonly BenchRequest[],
  { offsetsMs, maxConcurrency, onDone }: LoadOptions,
): Promise<LoadResult> {
  const turns = new Turns(maxConcurrency);
  const startMs = performance.now();
  let numDone = 0;
  const run = async (request: BenchRequest): Promise<RequestTrace> => {
    await turns.take();
    const trace = await streamRequest(target, request);
    turns.giveBack();
    onDone?.(trace, ++numDone);
    return trace;
  };
  const running: Promise<RequestTrace>[] = [];
  for (const [i, request] of requests.entries()) {
    const waitMs = startMs + (offsetsMs[i] ?? 0) - performance.now();
    if (waitMs > 0) await sleep(waitMs);
    running.push(run(request));
  }
  const traces = await Promise.all(running);
  return { traces, durationMs: performance.now() - startMs };
}

/** First come, first served. */
class Turns {
  #numFree: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#numFree = count;
  }

  async take(): Promise<void> {
    if (this.#numFree > 0) this.#numFree--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  giveBack(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#numFree++;
    else next();
  }
}
