/** `bench/abuse` at a fiftieth of its length or so: what its scenarios require holds. The full run is a script of its own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const script = fileURLToPath(new URL('../bench/abuse/run.mjs', import.meta.url));

// They wait more than they compute.
it.concurrent.each([
  ['dropped connections, preemption, idleness', '0.1', ['cancels', 'idle']],
  [
    'half-open, slow and malformed connections',
    '0.02',
    ['halfOpen', 'slowBodies', 'malformed', 'pipelining'],
  ],
  ['streams that nobody reads', '0.02', ['slowReaders']],
  ['many connections at once', '0.02', ['manyConnections']],
  ['signals in mid-stream', '0.02', ['signals']],
])('%s', async (_, scale, scenarios) => {
  const child = spawn(process.execPath, [script, '--scale', scale, '--idle-seconds', '3', ...scenarios]);
  let printed = '';
  child.stdout.on('data', (text) => (printed += text));
  child.stderr.on('data', (text) => (printed += text));
  const status = await new Promise((resolve) => child.once('close', resolve));
  expect(printed).toMatch(/\nall held\n$/);
  expect(status).toBe(0);
});
