/** Whether a process at rest uses no CPU. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** CPU time of a process with all its threads, in milliseconds (Linux: clock ticks of 10 ms). */
export function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** CPU time of this process with all its threads, in milliseconds. */
export function ownCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/**
 * The CPU milliseconds of the quietest of five windows, measured until one has at most `limitMs`. What polls or spins
 * does so in every window; collecting garbage, compiling and a test runner's own work end.
 */
export async function idleCpuMs(cpuMs: () => number, windowMs: number, limitMs: number): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < 5 && least > limitMs; i++) {
    const before = cpuMs();
    await sleep(windowMs);
    least = Math.min(least, cpuMs() - before);
  }
  return least;
}
