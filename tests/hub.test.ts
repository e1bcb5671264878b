/** `tenon serve org/name`: downloaded from a hub on loopback, then served again with no hub at all. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { startLoopbackHub } from '../packages/core/tests/fixtures/loopback-hub.js';
import { serve } from './serve-process.js';

const source = fileURLToPath(new URL('../packages/model-stories/model', import.meta.url));
const files = Object.fromEntries(readdirSync(source).map((name) => [name, readFileSync(join(source, name))]));
const cache = mkdtempSync(join(tmpdir(), 'tenon-hub-'));
afterAll(() => rmSync(cache, { recursive: true }));

it('serves a hub id, and serves it again offline', async () => {
  const hub = await startLoopbackHub({ id: 'tenon/stories', commit: 'a'.repeat(40), files });
  const environment = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache };
  const complete = async (url: string): Promise<string> => {
    const body = JSON.stringify({ prompt: 'Once upon a time', max_tokens: 8, temperature: 0 });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body });
    return ((await response.json()) as { choices: { text: string }[] }).choices[0]!.text;
  };
  let online: string;
  {
    await using server = await serve(['tenon/stories'], environment);
    online = await complete(server.url);
  }
  await hub[Symbol.asyncDispose]();
  await using server = await serve(['tenon/stories'], { ...environment, HF_HUB_OFFLINE: '1' });
  expect(online).toMatch(/\w/);
  expect(await complete(server.url)).toBe(online);
});
