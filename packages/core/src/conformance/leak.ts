/** Whether something that is done again and again leaves memory or threads behind. */
import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { fail } from './case.js';

/** Bytes after a garbage collection: of the process outside of JavaScript's heap, and of what JavaScript holds there. */
function heldBytes(): { readonly native: number; readonly external: number } {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  gc();
  gc();
  const { rss, heapTotal, heapUsed, external } = process.memoryUsage();
  return { native: rss - heapTotal, external: external + heapUsed };
}

/** Undefined where the system does not tell. */
function numThreads(): number | undefined {
  try {
    return readdirSync('/proc/self/task').length;
  } catch {
    return undefined;
  }
}

interface Sample {
  readonly native: number;
  readonly external: number;
  readonly threads: number | undefined;
  readonly freeBytes: number;
}

export interface LeakOptions {
  readonly rounds: number;
  /** What is fine to keep of a round, in bytes: what allocators do. */
  readonly bytesPerRound: number;
  /** Bytes that the device says are free. */
  readonly freeBytes: () => Promise<number>;
  /** Whether other programs change `freeBytes` too. */
  readonly freeBytesAreShared: boolean;
}

/**
 * Runs `round` again and again. What grows in the first and in the second half of the rounds (the first fifth is for warming
 * up) by more than allowed, and does so when they are repeated, is a leak; what grows once is not.
 */
export async function expectNoLeak(
  what: string,
  round: () => Promise<void>,
  options: LeakOptions,
): Promise<void> {
  const sample = async (): Promise<Sample> => ({
    ...heldBytes(),
    threads: numThreads(),
    freeBytes: await options.freeBytes(),
  });
  const fifth = Math.floor(options.rounds / 5);
  const repeat = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) await round();
  };
  await repeat(fifth);
  const samples = [await sample()];
  const measure = async (): Promise<void> => {
    await repeat(2 * fifth);
    samples.push(await sample());
  };
  const perRound = (value: (sample: Sample) => number): number =>
    Math.min(...samples.slice(1).map((each, i) => value(each) - value(samples[i]!))) / (2 * fifth);
  const mostGrown = (): number =>
    Math.max(perRound(({ native }) => native), perRound(({ external }) => external)); // prettier-ignore
  await measure();
  await measure();
  // Allocators give back late: what is a leak grows every time.
  for (let i = 0; i < 3 && mostGrown() > options.bytesPerRound; i++) await measure();
  const grown = mostGrown();
  if (grown > options.bytesPerRound)
    fail(
      `${what}: the process holds ${Math.round(grown / 1024)} KiB more after each of ${options.rounds} rounds`,
    );
  const threads = perRound((each) => each.threads ?? 0);
  if (threads >= 0.25)
    fail(`${what}: ${threads.toFixed(2)} threads are left after each of ${options.rounds} rounds`);
  const taken = perRound(({ freeBytes }) => -freeBytes);
  if (!options.freeBytesAreShared && taken > options.bytesPerRound)
    fail(
      `${what}: the device has ${Math.round(taken / 1024)} KiB less free memory after each of ${options.rounds} rounds`,
    );
}
