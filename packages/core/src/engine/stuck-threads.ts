/**
 * Threads that hang in a backend's code: no JavaScript runs there any more, so they cannot be ended. Node waits for them when
 * the process exits, for ever; such a process ends by a signal only.
 */
import type { Worker } from 'node:worker_threads';
import type { Host } from '../backend/index.js';
import { endsWithin } from './ends-within.js';

/** Milliseconds that a thread has to end, once it is terminated. */
const terminateTimeoutMs = 2000;

let numStuck = 0;

export const hasStuckThread = (): boolean => numStuck > 0;

/** Resolves when the thread has ended, or is known to be stuck. */
export async function terminate(worker: Worker, host: Host): Promise<void> {
  const terminated = worker.terminate();
  if (await endsWithin(terminated, terminateTimeoutMs)) return;
  numStuck++;
  void terminated.then(() => numStuck--);
  const message =
    'the engine thread hangs in the code of its backend and cannot be ended; what it holds of the device stays taken until the process ends';
  host.log('warn', message);
}
