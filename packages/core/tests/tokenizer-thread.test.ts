/** Needs the built dist/tokenizer/tokenizer-thread.js (`npm run build`): a worker thread cannot run the TypeScript source. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeThreadEntry } from '../src/tokenizer/encode-thread.js';
import { loadTokenizer } from '../src/tokenizer/load-tokenizer.js';
import type { TokenizerSource } from '../src/weights/checkpoint.js';

const model = new URL('../../model-stories/model/', import.meta.url);
const source: TokenizerSource = {
  kind: 'huggingface',
  tokenizerJson: JSON.parse(readFileSync(new URL('tokenizer.json', model), 'utf8')) as object,
  tokenizerConfig: JSON.parse(readFileSync(new URL('tokenizer_config.json', model), 'utf8')) as Record<
    string,
    unknown
  >,
  chatTemplate: undefined,
};
const story = 'Once upon a time, a small 🐸 sat by the pond. '.repeat(400);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tokenizer-thread-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A worker that does what `code` says instead of tokenizing. */
function workerEntry(name: string, code: string): URL {
  const path = join(folder, `${name}.mjs`);
  writeFileSync(path, code);
  return pathToFileURL(path);
}

describe('the tokenizer thread', () => {
  it('is built', () => {
    expect(existsSync(encodeThreadEntry() ?? new URL('file:///dist is missing: run npm run build'))).toBe(
      true,
    );
  });

  it('gives the ids that the calling thread gives', async () => {
    const tokenizer = (await loadTokenizer(source))!;
    const texts = [story, story.toUpperCase(), 'short'];
    const ids = await Promise.all(texts.map((text) => tokenizer.encodeAsync(text)));
    expect(ids).toEqual(texts.map((text) => tokenizer.encode(text)));
    expect(await tokenizer.encodeAsync('')).toEqual([]);
    await tokenizer.close();
  });

  it('leaves the event loop free', async () => {
    const tokenizer = (await loadTokenizer(source))!;
    await tokenizer.encodeAsync(story);
    let longestTickMs = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      longestTickMs = Math.max(longestTickMs, performance.now() - last);
      last = performance.now();
    }, 1);
    // One word of 400 000 characters: seconds of work.
    const done = tokenizer.encodeAsync('ab'.repeat(200_000));
    const inline = performance.now();
    await done;
    const tookMs = performance.now() - inline;
    clearInterval(timer);
    expect(longestTickMs).toBeLessThan(tookMs / 2);
    await tokenizer.close();
  });

  it('reports a crash, and starts again with the next text', async () => {
    const crash = workerEntry(
      'crash',
      "import { parentPort } from 'node:worker_threads'; parentPort.on('message', () => { throw new Error('out of luck'); });",
    );
    const tokenizer = (await loadTokenizer(source, { threadEntry: crash }))!;
    const first = await tokenizer.encodeAsync(story).catch((error: unknown) => error);
    expect(first).toMatchObject({
      code: 'internal.invariant',
      message: expect.stringContaining('out of luck') as string,
    });
    await expect(tokenizer.encodeAsync(story)).rejects.toMatchObject({ code: 'internal.invariant' });
    await tokenizer.close();
  });

  it('reports a thread that exits without an answer', async () => {
    const exit = workerEntry(
      'exit',
      "import { parentPort } from 'node:worker_threads'; parentPort.once('message', () => process.exit(3));",
    );
    const tokenizer = (await loadTokenizer(source, { threadEntry: exit }))!;
    await expect(tokenizer.encodeAsync(story)).rejects.toMatchObject({
      message: expect.stringContaining('code 3') as string,
    });
    await tokenizer.close();
  });

  it('fails what is in flight when it is closed', async () => {
    const silent = workerEntry(
      'silent',
      "import { parentPort } from 'node:worker_threads'; parentPort.on('message', () => {});",
    );
    const tokenizer = (await loadTokenizer(source, { threadEntry: silent }))!;
    const waiting = tokenizer.encodeAsync(story).catch((error: unknown) => error);
    await tokenizer.close();
    await tokenizer.close();
    expect(await waiting).toMatchObject({ code: 'capacity.shutting-down' });
    await expect(tokenizer.encodeAsync(story)).rejects.toMatchObject({ code: 'capacity.shutting-down' });
  });
});
