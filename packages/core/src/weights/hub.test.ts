import {
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { startLoopbackHub, type LoopbackHub, type LoopbackModel } from '../../tests/fixtures/loopback-hub.js';
import {
  f32Tensors, ggufFile, safetensors, temporaryFolder, tinyLlama, tinyLlamaGguf, tinyLlamaTensors, type Folder,
} from '../../tests/fixtures/model-files.js'; // prettier-ignore
import type { TenonError } from '../errors.js';
import type { DownloadProgress } from './hub-download.js';
import { parseHubModel } from './hub-model.js';
import { openCheckpoint, openTokenizerSource, type OpenCheckpointOptions } from './open-checkpoint.js';

const id = 'org/tiny';
const commit = '0123456789abcdef0123456789abcdef01234567';
const json = (value: object) => Buffer.from(JSON.stringify(value));
const weights = safetensors(f32Tensors(tinyLlamaTensors));
const files = {
  'config.json': json(tinyLlama),
  'tokenizer.json': json({ model: {} }),
  'model.safetensors': weights,
  'pytorch_model.bin': Buffer.from('pickle'),
  'README.md': Buffer.from('#'),
};

let cache: Folder;
const snapshot = () => join(cache.path, 'models--org--tiny', 'snapshots', commit);
const blobs = () => readdirSync(join(cache.path, 'models--org--tiny', 'blobs'));

beforeEach(() => {
  cache = temporaryFolder();
  vi.stubEnv('HF_HUB_CACHE', cache.path);
  vi.stubEnv('HF_HOME', cache.path);
  for (const name of ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HF_HUB_OFFLINE', 'HF_ENDPOINT'])
    vi.stubEnv(name, '');
});

afterEach(() => {
  vi.unstubAllEnvs();
  cache[Symbol.dispose]();
});

async function startHub(model: Partial<LoopbackModel> = {}): Promise<LoopbackHub> {
  const hub = await startLoopbackHub({ id, commit, files, ...model });
  vi.stubEnv('HF_ENDPOINT', hub.endpoint);
  return hub;
}

async function failure(model: string, options: OpenCheckpointOptions = {}): Promise<TenonError> {
  return (await openCheckpoint(model, options).then(
    () => expect.fail('it opened'),
    (error: unknown) => error,
  )) as TenonError;
}

describe('a hub model', () => {
  it("is downloaded into Python's cache layout, weights and what they need only", async () => {
    await using hub = await startHub();
    const progress: DownloadProgress[] = [];
    const checkpoint = await openCheckpoint(id, { onProgress: (step) => progress.push(step) });
    expect(checkpoint).toMatchObject({ path: snapshot(), tokenizerSource: { kind: 'huggingface' } });
    expect((await checkpoint.read('model.norm.weight')).length).toBe(4);
    expect(readdirSync(snapshot()).toSorted()).toEqual([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
    expect(readFileSync(join(cache.path, 'models--org--tiny', 'refs', 'main'), 'utf8')).toBe(commit);
    const link = readlinkSync(join(snapshot(), 'model.safetensors'));
    expect(link).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    expect(blobs().filter((name) => name.endsWith('.incomplete'))).toEqual([]);
    const last = progress.filter(({ file }) => file === `${id}/model.safetensors`).at(-1);
    expect(last).toEqual({
      file: `${id}/model.safetensors`,
      receivedBytes: weights.length,
      totalBytes: weights.length,
    });
    expect(hub.requests.filter((line) => line.includes('.bin') || line.includes('README'))).toEqual([]);
  });

  it('is not downloaded twice', async () => {
    await using hub = await startHub();
    await openCheckpoint(id);
    hub.requests.length = 0;
    await openCheckpoint(id);
    expect(hub.requests).toEqual([
      `hub GET /api/models/${id}/revision/main`,
      `hub GET /api/models/${id}/tree/${commit}`,
    ]);
    hub.requests.length = 0;
    await openCheckpoint(id, { revision: commit });
    expect(hub.requests).toEqual([]);
  });

  it('comes in shards', async () => {
    const [first, ...rest] = Object.entries(f32Tensors(tinyLlamaTensors));
    const shards = {
      'a-1.safetensors': safetensors(Object.fromEntries([first!])),
      'a-2.safetensors': safetensors(Object.fromEntries(rest)),
    };
    const map = Object.keys(tinyLlamaTensors).map((name) => [
      name,
      name === first![0] ? 'a-1.safetensors' : 'a-2.safetensors',
    ]);
    const index = json({ weight_map: Object.fromEntries(map) as object });
    await using hub = await startHub({
      files: {
        'config.json': files['config.json'],
        'model.safetensors.index.json': index,
        'x.safetensors': weights,
        ...shards,
      },
    });
    expect((await openCheckpoint(id)).locations.size).toBe(12);
    expect(hub.requests.filter((line) => line.includes('x.safetensors'))).toEqual([]);
    rmSync(join(snapshot(), 'a-2.safetensors'));
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect((await failure(id)).message).toContain('lacks a-2.safetensors of org/tiny');
  });

  it('is refused before its weights are fetched where it is not supported', async () => {
    const config = json({ ...tinyLlama, architectures: ['GPT2LMHeadModel'] });
    await using hub = await startHub({ files: { ...files, 'config.json': config } });
    expect(await failure(id)).toMatchObject({ code: 'unsupported.architecture' });
    expect(hub.requests.filter((line) => line.includes('safetensors'))).toEqual([]);
  });

  it('may be one GGUF file of several', async () => {
    const gguf = ggufFile(tinyLlamaGguf());
    await using _ = await startHub({ files: { 'tiny.Q4_0.gguf': gguf, 'tiny.Q8_0.gguf': gguf } });
    expect(await failure(id)).toMatchObject({
      code: 'config.model-not-found',
      message: expect.stringContaining(
        'has 2 GGUF files; name one: org/tiny:tiny.Q4_0.gguf, org/tiny:tiny.Q8_0.gguf',
      ),
    });
    expect(await openCheckpoint(`${id}:tiny.Q8_0.gguf`)).toMatchObject({
      format: 'gguf',
      path: join(snapshot(), 'tiny.Q8_0.gguf'),
    });
    expect(readdirSync(snapshot())).toEqual(['tiny.Q8_0.gguf']);
    expect((await openCheckpoint(`${id}:q4_0`)).path).toBe(join(snapshot(), 'tiny.Q4_0.gguf'));
    expect((await failure(`${id}:Q5_K`)).message).toContain("has 0 GGUF files like 'Q5_K'");
  });

  it('may be wanted for its tokenizer only', async () => {
    await using hub = await startHub();
    expect(await openTokenizerSource(id)).toMatchObject({ kind: 'huggingface' });
    expect(hub.requests.filter((line) => line.includes('safetensors'))).toEqual([]);
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect(await openTokenizerSource(id)).toMatchObject({ kind: 'huggingface' });
    expect((await failure(id)).message).toContain('lacks model.safetensors');
  });

  it.each(['adapter_model.safetensors', 'model-00001-of-00002.safetensors'])(
    'needs more weights than %s',
    async (name) => {
      await using _ = await startHub({ files: { 'config.json': files['config.json'], [name]: weights } });
      expect(await failure(id)).toMatchObject({
        code: 'config.weights-missing',
        message: 'org/tiny has neither model.safetensors nor model.safetensors.index.json',
      });
    },
  );

  it('says that pickles are not read', async () => {
    await using _ = await startHub({
      files: { 'config.json': files['config.json'], 'pytorch_model.bin': Buffer.from('x') },
    });
    expect(await failure(id)).toMatchObject({ code: 'config.weights-missing' });
  });
});

describe('a download', () => {
  it('continues where the connection broke', async () => {
    await using hub = await startHub({
      files: { 'config.json': files['config.json'], 'model.safetensors': weights },
    });
    hub.faults.push({}, { endAfter: 100 }, { endAfter: 50 }, { status: 503 });
    await openCheckpoint(id);
    expect(hub.requests.filter((line) => line.startsWith('storage'))).toEqual([
      'storage GET /model.safetensors',
      'storage GET /model.safetensors bytes=100-',
      'storage GET /model.safetensors bytes=150-',
      'storage GET /model.safetensors bytes=150-',
    ]);
  });

  it('continues what an earlier run left', async () => {
    await using hub = await startHub();
    await openCheckpoint(id);
    const blob = readlinkSync(join(snapshot(), 'model.safetensors')).split('/').at(-1)!;
    const file = join(cache.path, 'models--org--tiny', 'blobs', blob);
    rmSync(file);
    rmSync(join(snapshot(), 'model.safetensors'));
    writeFileSync(`${file}.incomplete`, weights.subarray(0, 200));
    hub.requests.length = 0;
    await openCheckpoint(id);
    expect(hub.requests.filter((line) => line.startsWith('storage'))).toEqual([
      'storage GET /model.safetensors bytes=200-',
    ]);
    expect(readFileSync(file).equals(weights)).toBe(true);
  });

  it('starts over where what an earlier run left is wrong, and where the server knows no ranges', async () => {
    for (const faults of [[], [{ ignoreRange: true }]]) {
      await using hub = await startHub();
      await openCheckpoint(id);
      const blob = readlinkSync(join(snapshot(), 'model.safetensors')).split('/').at(-1)!;
      const file = join(cache.path, 'models--org--tiny', 'blobs', blob);
      rmSync(file);
      writeFileSync(`${file}.incomplete`, Buffer.alloc(200, 7));
      hub.faults.push(...faults);
      hub.requests.length = 0;
      await openCheckpoint(id);
      expect(readFileSync(file).equals(weights)).toBe(true);
      const downloads = hub.requests.filter((line) => line.startsWith('storage'));
      expect(downloads).toHaveLength(faults.length === 0 ? 2 : 1);
    }
  });

  it.each(['config.json', 'model.safetensors'])('with a wrong checksum is refused: %s', async (name) => {
    await using hub = await startHub({
      files: { 'config.json': files['config.json'], 'model.safetensors': weights },
    });
    hub.faults.push(...(name === 'config.json' ? [] : [{}]), { flipByte: 20 });
    const error = await failure(id);
    expect(error.code).toBe('config.download-failed');
    expect(error.message).toMatch(
      new RegExp(`org/tiny/${name} arrived damaged: its (sha256|git-sha1) is not [0-9a-f]+`),
    );
    expect(blobs().filter((blob) => blob.endsWith('.incomplete'))).toEqual([]);
    await openCheckpoint(id);
  });

  it('gives up after several failures without a byte, and keeps what it has', async () => {
    await using hub = await startHub({
      files: { 'config.json': files['config.json'], 'model.safetensors': weights },
    });
    hub.faults.push({}, { endAfter: 100 }, ...Array.from({ length: 5 }, () => ({ status: 500 })));
    const error = await failure(id);
    expect(error.code).toBe('config.download-failed');
    expect(error.message).toContain('answered 500');
    hub.requests.length = 0;
    await openCheckpoint(id);
    expect(hub.requests).toContain('storage GET /model.safetensors bytes=100-');
  });

  it('of two at once ends well for both', async () => {
    await using _ = await startHub();
    const both = await Promise.all([openCheckpoint(id), openCheckpoint(id)]);
    expect(both.map(({ locations }) => locations.size)).toEqual([12, 12]);
  });
});

describe('without access', () => {
  it('names HF_TOKEN for gated models', async () => {
    await using _ = await startHub({ token: 'secret' });
    const error = await failure(id);
    expect(error).toMatchObject({ code: 'config.download-failed' });
    expect(error.message).toMatch(
      /answered 401 GatedRepo for org\/tiny \(revision main\): it is gated or private; .* set HF_TOKEN/,
    );
    vi.stubEnv('HF_TOKEN', 'wrong');
    expect((await failure(id)).message).toContain('the token of HF_TOKEN may not read it');
  });

  it('sends the token of the environment or of the token file, and to the hub only', async () => {
    await using hub = await startHub({ token: 'secret' });
    vi.stubEnv('HF_TOKEN', 'secret');
    await openCheckpoint(id);
    // The storage server answers 400 to a request with a token.
    expect(hub.requests.filter((line) => line.startsWith('storage'))).toHaveLength(1);
    vi.stubEnv('HF_TOKEN', '');
    cache.write('token', 'secret\n');
    await openCheckpoint(id);
  });

  it('says what does not exist', async () => {
    await using hub = await startHub();
    expect(await failure('org/other')).toMatchObject({
      code: 'config.model-not-found',
      message: expect.stringContaining(
        `${hub.endpoint} answered 404 RepoNotFound for org/other (revision main)`,
      ),
    });
    expect(await failure(id, { revision: 'v2' })).toMatchObject({
      code: 'config.model-not-found',
      message: expect.stringContaining('RevisionNotFound for org/tiny (revision v2)'),
    });
    expect(await failure(id, { revision: '../x' })).toMatchObject({
      code: 'config.invalid-option',
      param: 'revision',
    });
  });

  it('says that the hub cannot be reached', async () => {
    const hub = await startHub();
    await hub[Symbol.asyncDispose]();
    expect(await failure(id)).toMatchObject({
      code: 'config.download-failed',
      message: expect.stringMatching(
        /cannot reach http:\/\/127.0.0.1:\d+ for org\/tiny .*ECONNREFUSED.*HF_ENDPOINT/,
      ),
    });
  });

  it('uses the cache where the hub cannot be reached, and says so', async () => {
    const hub = await startHub();
    await openCheckpoint(id);
    await hub[Symbol.asyncDispose]();
    const notices: string[] = [];
    await openCheckpoint(id, { onNotice: (message) => notices.push(message) });
    expect(notices).toEqual([expect.stringContaining(`using the copy in ${snapshot()}`)]);
  });

  it.each([
    ['HF_ENDPOINT', 'ftp://x'],
    ['HF_ENDPOINT', 'nonsense'],
    ['HF_HUB_OFFLINE', 'maybe'],
  ])('refuses %s=%s', async (name, value) => {
    vi.stubEnv(name, value);
    expect(await failure(id)).toMatchObject({
      code: 'config.invalid-environment',
      message: expect.stringContaining(`${name} is '${value}'`),
    });
  });

  it('says that the cache cannot be written', async () => {
    await using _ = await startHub();
    const file = cache.write('taken', '');
    expect(await failure(id, { downloadDir: file })).toMatchObject({
      code: 'config.download-failed',
      message: expect.stringContaining('set HF_HUB_CACHE to a folder that can be written'),
    });
  });
});

describe('offline', () => {
  beforeEach(() => vi.stubEnv('HF_HUB_OFFLINE', '1'));

  /** A cache as Python's huggingface_hub leaves it. */
  function pythonCache(names: readonly (keyof typeof files)[]): void {
    const repo = 'models--org--tiny';
    cache.write(`${repo}/refs/main`, commit);
    for (const name of names) {
      cache.write(`${repo}/blobs/etag-of-${name}`, files[name]);
      cache.write(`${repo}/snapshots/${commit}/.keep`, '');
      symlinkSync(`../../blobs/etag-of-${name}`, join(snapshot(), name));
    }
  }

  it("reads a cache made by Python's library", async () => {
    pythonCache(['config.json', 'tokenizer.json', 'model.safetensors']);
    expect(lstatSync(join(snapshot(), 'config.json')).isSymbolicLink()).toBe(true);
    expect(await openCheckpoint(id)).toMatchObject({
      path: snapshot(),
      tokenizerSource: { kind: 'huggingface' },
    });
    expect((await openCheckpoint(id, { revision: commit })).locations.size).toBe(12);
  });

  it('names the file that is missing', async () => {
    expect(await failure(id)).toMatchObject({
      code: 'config.download-failed',
      message: expect.stringContaining(
        `HF_HUB_OFFLINE is set, and ${cache.path} lacks any copy of org/tiny (revision main)`,
      ),
    });
    pythonCache(['config.json', 'model.safetensors']);
    rmSync(join(cache.path, 'models--org--tiny', 'blobs', 'etag-of-model.safetensors'));
    expect((await failure(id)).message).toContain('lacks model.safetensors of org/tiny (revision main)');
    expect((await failure(`${id}:Q4_0`)).message).toContain('lacks Q4_0 of org/tiny');
  });
});

describe('parseHubModel', () => {
  it.each([
    ['org/name', { id: 'org/name', gguf: undefined }],
    ['Qwen/Qwen3-0.6B', { id: 'Qwen/Qwen3-0.6B', gguf: undefined }],
    ['org/name:a.Q4_K_M.gguf', { id: 'org/name', gguf: 'a.Q4_K_M.gguf' }],
    ['name', undefined], ['a/b/c', undefined], ['./name', undefined], ['/abs/path', undefined], ['org/', undefined],
    ['org/../x', undefined], ['org/a..b', undefined], ['org/a--b', undefined], ['org/x.gguf', undefined], ['org/name:', undefined],
    ['org/name:../x', undefined],
  ])('%s', (text, model) => {
    expect(parseHubModel(text)).toEqual(model);
  }); // prettier-ignore
});
