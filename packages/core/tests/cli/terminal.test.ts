/** `tenon serve` on a terminal: a pseudo-terminal of script(1), where there is one. */
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { expect, it } from 'vitest';

import { nullBackend } from './tenon-process.js';

const bin = fileURLToPath(new URL('../../bin/tenon.js', import.meta.url));
const hasScript = spawnSync('script', ['--version']).status === 0;

/** Runs a server on a terminal of 60 columns until `ask` is done, then stops it; what the terminal was sent. */
async function onTerminal(
  args: readonly string[],
  env: Record<string, string>,
  ask: (url: string) => Promise<void>,
): Promise<string> {
  const words = [process.execPath, bin, 'serve', '--port', '0', ...nullBackend, ...args];
  const command = `stty cols 60; exec ${words.map((word) => `'${word}'`).join(' ')}`;
  const child = spawn('script', ['-qfec', command, '/dev/null'], {
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let shown = '';
  const ended = new Promise((resolve) => child.once('close', resolve));
  const url = new Promise<string>((resolve, reject) => {
    child.stdout.on('data', (text: Buffer) => {
      shown += text.toString();
      const found = /^URL +(\S+)/m.exec(shown)?.[1];
      if (found !== undefined) resolve(found);
    });
    void ended.then(() => reject(new Error(`it ended: ${shown}`)));
  });
  await ask(await url);
  // Control-C.
  child.stdin.write('\u0003');
  await ended;
  return shown;
}

it.runIf(hasScript)('shows one line of statistics in place while it works, and none when idle', async () => {
  const env = { NULL_STEP_MS: '3', TENON_LOG_STATS_INTERVAL: '0.2' };
  const shown = await onTerminal(['--disable-access-log'], env, async (url) => {
    const body = JSON.stringify({ prompt: 'Once', max_tokens: 250, ignore_eos: true });
    const headers = { 'content-type': 'application/json' };
    expect((await fetch(`${url}/v1/completions`, { method: 'POST', headers, body })).status).toBe(200);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  });
  const lines = shown.split(/\r?\n/).filter((line) => line.includes('tokens/s'));
  expect(lines.length).toBeGreaterThan(2);
  expect(lines[0]).toMatch(
    /^\d\d:\d\d:\d\d info {4}running 1, waiting 0; prompt [\d.]+, generation \d+ tokens\/s; KV cache [\d.]+ %/,
  );
  // Two rows of the terminal each, and cleared before the next.
  for (const line of lines.slice(1)) expect(line.startsWith('\u001B[2A\u001B[J')).toBe(true);
  expect(lines.at(-1)).toContain('running 0, waiting 0;');
  expect(lines.filter((line) => line.includes('running 0'))).toHaveLength(1);
});

it.runIf(hasScript)('draws no statistics with --disable-log-stats, and leaves the cursor shown', async () => {
  const shown = await onTerminal(
    ['--disable-log-stats'],
    { TENON_LOG_STATS_INTERVAL: '0.05' },
    async (url) => {
      const body = JSON.stringify({ prompt: 'Once', max_tokens: 20, ignore_eos: true });
      await fetch(`${url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      });
      await new Promise((resolve) => setTimeout(resolve, 300));
    },
  );
  expect(shown).not.toContain('tokens/s');
  expect(shown).toContain('POST /v1/completions 200');
  expect(shown.lastIndexOf('\u001B[?25h')).toBeGreaterThanOrEqual(shown.lastIndexOf('\u001B[?25l'));
});
