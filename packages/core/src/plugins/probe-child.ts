/**
 * Entry of the process that loads a backend for the first time: `probe-child.js <package> <entry> <limit in ms> <pid of who asks>`.
 * Says on descriptor 3, in lines of JSON, how far it is and what it found. What goes wrong here harms no server.
 */
import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { loadBackendModule } from './load-backend.js';
import type { ProbeMessage } from './probe-outcome.js';

const [packageName, entry, timeoutMs, asker] = process.argv.slice(2) as [string, string, string, string];

/** Runs beside the backend, which may hang in native code: ends all with the time, or with the process that asked. */
const watchdogCode = `
  const { asker, timeoutMs } = require('node:worker_threads').workerData;
  const endMs = Date.now() + timeoutMs;
  setInterval(() => {
    if (process.ppid !== asker || Date.now() > endMs) process.kill(-process.pid, 'SIGKILL');
  }, 50);`;

const say = (message: ProbeMessage): void => {
  writeSync(3, `${JSON.stringify(message)}\n`);
};

function startWatchdog(): Worker {
  const workerData = { asker: Number(asker), timeoutMs: Number(timeoutMs) };
  return new Worker(watchdogCode, { eval: true, workerData });
}

async function probe(): Promise<void> {
  say({ phase: 'import' });
  const module = await loadBackendModule(packageName, entry);
  say({ phase: 'create' });
  const backend = module.create({ log: (level, message) => process.stderr.write(`${level}: ${message}\n`) });
  say({ phase: 'devices' });
  const devices = await backend.devices();
  say({ info: backend.info, devices });
}

startWatchdog();
await probe().catch((error: unknown) =>
  say({ error: error instanceof Error ? error.message : String(error) }),
);
say({ phase: 'exit' });
process.exit(0);
