/** What the machine may refuse a server (disk, memory) and what may happen to its model's files: clear errors, no crash. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { startLoopbackHub } from '../packages/core/tests/fixtures/loopback-hub.js';
import { run, serve } from './serve-process.js';

const model = fileURLToPath(new URL('../packages/model-stories/model', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tenon-limits-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Whether the system's limits can be set for a process: part of util-linux. Tests that need it are skipped where it is not. */
const hasPrlimit = spawnSync('prlimit', ['--version']).status === 0;
/** Whether a file system of a fixed size can be had: as root, or in a user namespace. Its test is skipped where neither is allowed. */
const hasTmpfs = spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'none', folder]).status === 0;

const complete = async (url: string): Promise<string> => {
  const body = JSON.stringify({ prompt: 'Once upon a time', max_tokens: 8, temperature: 0 });
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body });
  return ((await response.json()) as { choices: { text: string }[] }).choices[0]!.text;
};

describe('a full disk while a model is downloaded', () => {
  const files = Object.fromEntries(readdirSync(model).map((name) => [name, readFileSync(join(model, name))]));
  const weightsBytes = statSync(join(model, 'model.safetensors')).size;
  const startHub = () => startLoopbackHub({ id: 'tenon/stories', commit: 'b'.repeat(40), files });

  it.skipIf(!hasPrlimit)(
    'is named, leaves nothing that counts as whole, and is gone on with later',
    async () => {
      await using hub = await startHub();
      const cache = join(folder, 'cache');
      const environment = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache };
      // Files of this process may have half of what the weights need: writing more fails as on a full disk.
      const half = Math.floor(weightsBytes / 2);
      const under = ['prlimit', `--fsize=${half}`];
      const { code, stderr } = await run(['serve', 'tenon/stories', '--port', '0'], { environment, under });
      expect(stderr).toMatch(
        /error \[config\.download-failed\]: cannot write tenon\/stories\/model\.safetensors to .*; make room, or set HF_HUB_CACHE/,
      );
      expect(code).toBe(2);
      const blobs = join(cache, 'models--tenon--stories', 'blobs');
      const partial = readdirSync(blobs).filter((name) => name.endsWith('.incomplete'));
      expect(partial).toHaveLength(1);
      expect(statSync(join(blobs, partial[0]!)).size).toBe(half);
      hub.requests.length = 0;
      await using server = await serve(['tenon/stories'], environment);
      expect(await complete(server.url)).toMatch(/\w/);
      expect(hub.requests).toContainEqual(
        expect.stringMatching(new RegExp(`model\\.safetensors bytes=${half}-$`)),
      );
      expect(readdirSync(blobs).filter((name) => name.endsWith('.incomplete'))).toEqual([]);
    },
  );

  it.skipIf(!hasTmpfs)('is refused at once where it can be foreseen', async () => {
    await using hub = await startHub();
    const small = mkdtempSync(join(folder, 'small-'));
    const script = `mount -t tmpfs -o size=2m none ${small} && exec "$@"`;
    const environment = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: small };
    const under = ['unshare', '-rm', 'sh', '-c', script, 'sh'];
    const { code, stderr } = await run(['serve', 'tenon/stories', '--port', '0'], { environment, under });
    expect(stderr).toMatch(
      /error \[config\.download-failed\]: \d+ bytes are to be downloaded, but .* has \d+ free; make room/,
    );
    expect(code).toBe(2);
  });
});

describe("a model's files", () => {
  const copy = (name: string): string => {
    const path = join(folder, name);
    cpSync(model, path, { recursive: true });
    return path;
  };

  it('may change and go once they are loaded', async () => {
    const path = copy('loaded');
    await using server = await serve([path]);
    const before = await complete(server.url);
    truncateSync(join(path, 'model.safetensors'), 100);
    rmSync(join(path, 'tokenizer.json'));
    expect(await complete(server.url)).toBe(before);
    rmSync(path, { recursive: true });
    expect(await complete(server.url)).toBe(before);
  });

  it('that are cut when they are opened stop the start', async () => {
    const path = copy('cut');
    truncateSync(join(path, 'model.safetensors'), 2_000_000);
    const { code, stderr } = await run(['serve', path, '--port', '0']);
    expect(stderr).toMatch(/error \[config\.weights-invalid\]: .*truncated/);
    expect(code).toBe(2);
  });
});

describe('memory that the system refuses', () => {
  const mib = 2 ** 20;
  /** A block of the embedded model has 32 tokens of 3 KiB. */
  const cases: readonly [string, string, readonly string[]][] = [
    ['by what is free', '4000000', []],
    ['by a limit of the process', '4096', ['prlimit', `--data=${350 * mib}`]],
  ];

  it.skipIf(!hasPrlimit).each(cases)(
    'for the KV cache, %s, is an error and no crash',
    async (_, numBlocks, under) => {
      const args = ['serve', '--port', '0', '--num-gpu-blocks-override', numBlocks];
      const { code, signal, stderr } = await run(args, { under });
      expect(stderr).toMatch(/error \[backend\.out-of-memory\]: kv/);
      expect(signal).toBeNull();
      expect(code).toBe(1);
    },
  );
});
