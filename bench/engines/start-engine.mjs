// An engine as a process that speaks what protocol.md says.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds for an engine to end by itself. */
const stopMs = 10_000;

/**
 * Resolves when the engine is ready; `startMs` is of performance.now(). `ask` sends one job and resolves to its answer, `stop` resolves
 * when the process has ended. `log` is where standard error goes (a file descriptor). An abort of `signal` kills the engine, and what was asked fails.
 */
export async function startEngine(name, command, args, { env, log = 'ignore', signal } = {}) {
  signal?.throwIfAborted();
  const startMs = performance.now();
  // a process group of its own, as some have further processes
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', log],
    env: { ...process.env, ...env },
    detached: true,
  });
  const killAll = () => killGroup(child.pid);
  process.once('exit', killAll);
  signal?.addEventListener('abort', killAll);
  for (const emitter of [child, child.stdin]) emitter.on('error', () => {}); // the next answer tells
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (!done) return JSON.parse(value);
    const why =
      signal?.aborted === true
        ? 'was out of time'
        : `ended unexpectedly; run it by hand to see why: ${command} ${args.join(' ')}`;
    throw new Error(`${name} ${why}`);
  };
  const ask = async (job) => {
    child.stdin.write(`${JSON.stringify(job)}\n`);
    return next();
  };
  const stop = async () => {
    const ended = child.exitCode ?? child.signalCode ?? once(child, 'exit');
    child.stdin.end();
    await Promise.race([ended, sleep(stopMs, undefined, { ref: false })]);
    killAll();
    process.off('exit', killAll);
    signal?.removeEventListener('abort', killAll);
  };
  try {
    return { ...(await next()), name, startMs, ask, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function killGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}
