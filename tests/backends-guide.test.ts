/** docs/backends.md as a reader follows it: its commands (those marked `sh`), in order, in an empty folder, against a registry on loopback. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { buildTools, startReleasedRegistry, type ReleasedRegistry } from './released-registry.js';
import { freePort } from './serve-process.js';

const guide = readFileSync(new URL('../docs/backends.md', import.meta.url), 'utf8');
const commands = [...guide.matchAll(/^```sh\n([^]*?)^```$/gm)].flatMap(([, block]) =>
  block!.trim().split('\n'),
);
const minuteMs = 60_000;

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'tenon-guide-')));
const placeFile = join(folder, 'place');
let registry: ReleasedRegistry;

beforeAll(async () => {
  registry = await startReleasedRegistry(folder, buildTools);
  mkdirSync(join(folder, 'reader'));
  writeFileSync(placeFile, join(folder, 'reader'));
});
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** The folder that the commands before have gone to. */
const place = () => readFileSync(placeFile, 'utf8').trim();

const expected: readonly [RegExp, RegExp][] = [
  [/tenon devices/, /my-npu:0/],
  [/tenon doctor/, /my-npu: .*: ok/],
  [/tenon explain/, /sim attention/],
  [/tenon complete/, /\w+ \w+ \w+/],
];

it('has commands from a new backend to its publication', () => {
  for (const part of ['npm create', 'tenon conform', 'tenon plugin pack', 'npm publish', 'tenon serve'])
    expect(
      commands.some((command) => command.includes(part)),
      part,
    ).toBe(true);
});

it.each(commands)(
  '%s',
  async (command) => {
    if (command.includes('tenon serve')) return await serveAndAsk(command);
    const printed = registry.run(place(), 'bash', '-ec', `${command}\npwd > ${placeFile}`);
    for (const [what, says] of expected) if (what.test(command)) expect(printed).toMatch(says);
  },
  5 * minuteMs,
);

/** Runs a server, on a free port, until it has answered. */
async function serveAndAsk(command: string): Promise<void> {
  const port = await freePort();
  const server = spawn('bash', ['-c', `exec ${command.replace(/--port \d+/, '')} --port ${port}`], {
    cwd: place(),
    env: registry.environment,
    detached: true,
  });
  let printed = '';
  for (const stream of [server.stdout, server.stderr]) stream.on('data', (data) => (printed += data));
  const exited = new Promise((resolve) => server.once('exit', resolve));
  try {
    const models = () => fetch(`http://127.0.0.1:${port}/v1/models`).then((response) => response.json(), () => undefined); // prettier-ignore
    await expect
      .poll(models, { timeout: minuteMs, message: printed })
      .toMatchObject({ data: [{ object: 'model' }] });
    const body = JSON.stringify({ prompt: 'Once upon a time', max_tokens: 12 });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
      method: 'POST',
      headers,
      body,
    });
    const { choices } = (await response.json()) as { choices: { text: string }[] };
    expect(choices[0]!.text).toMatch(/\w+ \w+ \w+/);
  } finally {
    process.kill(-server.pid!, 'SIGTERM');
    await exited;
  }
}
