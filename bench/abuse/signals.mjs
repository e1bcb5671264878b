/** Ends of a server in mid-stream: what its clients see, its status, and how soon another can have its port. */
import { setTimeout as sleep } from 'node:timers/promises';
import { completion, open } from './client.mjs';
import { askHealth, freePort, startServer } from './server.mjs';

const stream = (maxTokens) =>
  completion({ prompt: [3, 4, 5], max_tokens: maxTokens, ignore_eos: true, stream: true });

/** How a stream ended, as its client sees it. */
function endOf({ text }) {
  if (text.includes('"finish_reason":"length"') && text.includes('data: [DONE]')) return 'finished';
  if (text.includes('"tenon_code":"capacity.shutting-down"')) return 'error';
  return text.includes('data: [DONE]') ? 'silence' : 'cut';
}

const ends = [
  { what: 'SIGTERM', signals: ['SIGTERM'], args: [], tokens: 900, end: 'error', status: 0 },
  { what: 'SIGINT', signals: ['SIGINT'], args: [], tokens: 900, end: 'error', status: 0 },
  { what: 'SIGTERM, drained', signals: ['SIGTERM'], args: ['--shutdown-timeout', '20'], tokens: 300, end: 'finished', status: 0 },
  { what: 'SIGTERM, drained to the limit', signals: ['SIGTERM'], args: ['--shutdown-timeout', '0.3'], tokens: 900, end: 'error', status: 0 },
  { what: 'SIGTERM twice', signals: ['SIGTERM', 'SIGTERM'], args: ['--shutdown-timeout', '20'], tokens: 900, end: 'cut', status: 143 },
  { what: 'SIGINT twice', signals: ['SIGINT', 'SIGINT'], args: ['--shutdown-timeout', '20'], tokens: 900, end: 'cut', status: 130 },
  { what: 'SIGKILL', signals: ['SIGKILL'], args: [], tokens: 900, end: 'cut', status: null },
]; // prettier-ignore

/** All on one port, each server started as soon as the last one has ended. */
export async function signals({ scale }) {
  const port = await freePort();
  const figures = {};
  const wrong = [];
  for (const { what, signals: sent, args, tokens, end, status } of ends) {
    const server = await startServer({ port, args, environment: { NULL_STEP_MS: '3' } });
    const clients = Array.from({ length: Math.max(4, Math.round(32 * scale)) }, () => open(port, stream(tokens)));
    while (clients.some(({ text }) => !text.includes('data: '))) await sleep(5);
    const startMs = performance.now();
    for (const signal of sent) {
      server.child.kill(signal);
      await sleep(100);
    }
    const ended = await server.ended;
    const seconds = (performance.now() - startMs) / 1000;
    await Promise.all(clients.map(({ closed }) => closed));
    const seen = [...new Set(clients.map(endOf))].join(', ');
    figures[what] = `${seen}; status ${ended.status ?? ended.signal} after ${seconds.toFixed(1)} s`;
    if (seen !== end || ended.status !== status) wrong.push(`${what}: ${figures[what]}`);
    if ((await askHealth(port)) !== 0) wrong.push(`${what}: something still answers`);
  } // prettier-ignore
  return { figures, wrong };
}
