import { appendFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  f32Tensors, ggufFile, safetensors, temporaryFolder, tinyLlama, tinyLlamaGguf, tinyLlamaTensors, type Folder,
} from '../../tests/fixtures/model-files.js'; // prettier-ignore
import type { PlanWeight } from '../backend/index.js';
import { openCheckpoint, openTokenizerSource } from './open-checkpoint.js';
import { requireTensors } from './require-tensors.js';

const goldens = fileURLToPath(new URL('../../tests/goldens/', import.meta.url));

function tinyFolder(config: object = tinyLlama, tensors = f32Tensors(tinyLlamaTensors)): Folder {
  const folder = temporaryFolder();
  folder.write('config.json', config);
  folder.write('model.safetensors', safetensors(tensors));
  return folder;
}

const without = (name: string) => {
  const { [name]: _, ...rest } = f32Tensors(tinyLlamaTensors);
  return rest;
};

describe('openCheckpoint', () => {
  it('opens a folder', async () => {
    using folder = tinyFolder();
    const checkpoint = await openCheckpoint(folder.path);
    expect(checkpoint).toMatchObject({
      format: 'safetensors',
      path: folder.path,
      tokenizerSource: { kind: 'none' },
    });
    expect(checkpoint.config).toMatchObject({ hiddenSize: 4, tieWordEmbeddings: false });
    const norm = await checkpoint.read('model.norm.weight');
    expect([...norm]).toEqual([10, 10.001, 10.002, 10.003].map(Math.fround));
    await expect(checkpoint.read('nothing')).rejects.toMatchObject({ code: 'config.weights-missing' });
  });

  it.each(['llama', 'llama-rope3', 'mistral', 'qwen2', 'qwen3'])(
    'opens the golden checkpoint %s',
    async (name) => {
      const { config, locations, read } = await openCheckpoint(join(goldens, name));
      expect(config).toMatchObject({
        vocabSize: 320,
        hiddenSize: 64,
        numKvHeads: 2,
        checkpointDtype: 'bf16',
      });
      const embedding = await read('model.embed_tokens.weight');
      expect(embedding.length).toBe(320 * 64);
      expect(embedding.every(Number.isFinite)).toBe(true);
      expect(config.tieWordEmbeddings).toBe(!locations.has('lm_head.weight'));
    },
  );

  it('opens the one GGUF file of a folder', async () => {
    using folder = temporaryFolder();
    const file = folder.write('tiny.gguf', ggufFile(tinyLlamaGguf()));
    expect(await openCheckpoint(folder.path)).toMatchObject({ format: 'gguf', path: file });
    folder.write('other.gguf', ggufFile(tinyLlamaGguf()));
    await expect(openCheckpoint(folder.path)).rejects.toThrow(
      /holds 2 GGUF files; name one: other.gguf, tiny.gguf/,
    );
  });

  it('reads generation_config.json', async () => {
    using folder = tinyFolder();
    folder.write('generation_config.json', { eos_token_id: [2, 7], temperature: 0.6, top_k: 20 });
    const { config, generationDefaults } = await openCheckpoint(folder.path);
    expect(config.eosTokenIds).toEqual([2, 7]);
    expect(generationDefaults).toEqual({ temperature: 0.6, topK: 20 });
  });

  it('applies overrides before anything is checked', async () => {
    using folder = tinyFolder({ ...tinyLlama, max_position_embeddings: 'many' });
    await expect(openCheckpoint(folder.path)).rejects.toMatchObject({ code: 'config.model-invalid' });
    const { config } = await openCheckpoint(folder.path, { hfOverrides: { max_position_embeddings: 64 } });
    expect(config.maxPositionEmbeddings).toBe(64);
  });

  it("takes the tensors' type where config.json names none", async () => {
    const { torch_dtype: _, ...config } = tinyLlama;
    const tensors = f32Tensors(tinyLlamaTensors);
    const halves = Object.entries(tensors).map(([name, { shape, data }]) => {
      return [name, { dtype: 'F16', shape, data: data.subarray(0, data.length / 2) }] as const;
    });
    using folder = tinyFolder(config, Object.fromEntries(halves));
    expect((await openCheckpoint(folder.path)).config.checkpointDtype).toBe('f16');
  });

  describe('tied embeddings', () => {
    const tied = { ...tinyLlama, tie_word_embeddings: true };
    const same = () => {
      const tensors = f32Tensors(tinyLlamaTensors);
      return { ...tensors, 'lm_head.weight': tensors['model.embed_tokens.weight']! };
    };

    it('are tied where the output matrix is missing', async () => {
      using folder = tinyFolder(tinyLlama, without('lm_head.weight'));
      expect((await openCheckpoint(folder.path)).config.tieWordEmbeddings).toBe(true);
    });

    it('are tied where both are there and equal', async () => {
      using folder = tinyFolder(tied, same());
      expect((await openCheckpoint(folder.path)).config.tieWordEmbeddings).toBe(true);
    });

    it('are not tied where both are there and differ', async () => {
      using folder = tinyFolder(tied);
      expect((await openCheckpoint(folder.path)).config.tieWordEmbeddings).toBe(false);
    });

    it('are not tied where config.json says so, though equal', async () => {
      using folder = tinyFolder(tinyLlama, same());
      expect((await openCheckpoint(folder.path)).config.tieWordEmbeddings).toBe(false);
    });

    it('may be stored under the name of the output matrix', async () => {
      using folder = tinyFolder(tied, without('model.embed_tokens.weight'));
      const { config, locations, read } = await openCheckpoint(folder.path);
      expect(config.tieWordEmbeddings).toBe(true);
      expect(locations.get('model.embed_tokens.weight')).toMatchObject({ shape: [8, 4] });
      expect(await read('model.embed_tokens.weight')).toEqual(await read('lm_head.weight'));
    });
  });

  it('adds the prefix that checkpoints of the bare model lack', async () => {
    const bare = Object.entries(f32Tensors(tinyLlamaTensors)).map(
      ([name, entry]) => [name.replace(/^model\./, ''), entry] as const,
    );
    using folder = tinyFolder(tinyLlama, Object.fromEntries(bare));
    const { locations } = await openCheckpoint(folder.path);
    expect([...locations.keys()].toSorted()).toEqual(Object.keys(tinyLlamaTensors).toSorted());
    expect(locations.get('model.norm.weight')?.name).toBe('model.norm.weight');
  });

  describe('tokenizer files', () => {
    it('are read and joined', async () => {
      using folder = tinyFolder();
      folder.write('tokenizer.json', { model: { type: 'BPE' } });
      folder.write('tokenizer_config.json', { eos_token: '</s>', chat_template: 'from the config' });
      folder.write('special_tokens_map.json', { eos_token: 'old', bos_token: '<s>' });
      expect((await openCheckpoint(folder.path)).tokenizerSource).toEqual({
        kind: 'huggingface',
        tokenizerJson: { model: { type: 'BPE' } },
        tokenizerConfig: { eos_token: '</s>', bos_token: '<s>', chat_template: 'from the config' },
        chatTemplate: 'from the config',
      });
      folder.write('chat_template.jinja', 'from its file');
      expect((await openCheckpoint(folder.path)).tokenizerSource).toMatchObject({
        chatTemplate: 'from its file',
      });
      expect((await openCheckpoint(folder.path, { tokenizer: false })).tokenizerSource).toEqual({
        kind: 'none',
      });
    });

    it('are read without a model around them', async () => {
      using folder = temporaryFolder();
      folder.write('tokenizer.json', {});
      expect(await openTokenizerSource(folder.path)).toMatchObject({
        kind: 'huggingface',
        chatTemplate: undefined,
      });
      const file = folder.write('x.gguf', ggufFile(tinyLlamaGguf()));
      expect(await openTokenizerSource(file)).toMatchObject({ kind: 'gguf' });
    });

    it('may hold several chat templates', async () => {
      using folder = tinyFolder();
      folder.write('tokenizer.json', {});
      const templates = [
        { name: 'tools', template: 'T' },
        { name: 'default', template: 'D' },
      ];
      folder.write('tokenizer_config.json', { chat_template: templates });
      expect((await openCheckpoint(folder.path)).tokenizerSource).toMatchObject({ chatTemplate: 'D' });
    });

    it('are refused where they are broken', async () => {
      using folder = tinyFolder();
      folder.write('tokenizer.json', '{"model": ');
      await expect(openCheckpoint(folder.path)).rejects.toMatchObject({
        code: 'config.tokenizer-invalid',
        message: expect.stringContaining('tokenizer.json is not valid JSON'),
      });
    });
  });

  it.each([
    ['no-such-model', "no model 'no-such-model': there is no folder or file /"],
    ['./no/such', "no model './no/such'"],
    ['a/b/c', 'it is no hub id (org/name or org/name:file.gguf)'],
    ['models/llama.gguf', 'there is no folder or file /'],
    ['', "no model ''"],
  ])('says what it looked for: %j', async (model, message) => {
    await expect(openCheckpoint(model)).rejects.toMatchObject({
      code: 'config.model-not-found',
      message: expect.stringContaining(message),
    });
  });

  it('says what a folder or file is not', async () => {
    using folder = temporaryFolder();
    await expect(openCheckpoint(folder.path)).rejects.toMatchObject({
      code: 'config.model-not-found',
      message: expect.stringContaining('is no model: it has neither config.json nor a .gguf file'),
    });
    await expect(openCheckpoint(folder.write('config.json', '{'))).rejects.toThrow('name its folder instead');
    await expect(openCheckpoint(folder.path)).rejects.toMatchObject({ code: 'config.model-invalid' });
    await expect(openCheckpoint(folder.write('x.txt', 'text of some length'))).rejects.toThrow(
      'is no GGUF file',
    );
    folder.write('config.json', tinyLlama);
    await expect(openCheckpoint(folder.path)).rejects.toMatchObject({ code: 'config.weights-missing' });
  });

  it('notices that a file changed', async () => {
    using folder = tinyFolder();
    const file = join(folder.path, 'model.safetensors');
    const checkpoint = await openCheckpoint(folder.path);
    await checkpoint.verifyUnchanged();
    utimesSync(file, 1, 1);
    await expect(checkpoint.verifyUnchanged()).rejects.toMatchObject({ code: 'config.weights-invalid' });
    const again = await openCheckpoint(folder.path);
    appendFileSync(file, 'x');
    await expect(again.verifyUnchanged()).rejects.toThrow(`${file} changed after it was opened`);
  });
});

describe('requireTensors', () => {
  const weight = (parts: string[], shape: number[]): PlanWeight => ({
    name: 'w',
    parts,
    shape,
    dtype: 'f32',
    uses: ['linear'],
  });
  const attention = 'model.layers.0.self_attn';
  const qkv = ['q', 'k', 'v'].map((part) => `${attention}.${part}_proj.weight`);

  it('accepts parts that add up', async () => {
    using folder = tinyFolder();
    const checkpoint = await openCheckpoint(folder.path);
    const constant = { ...weight([], [4]), data: new Float32Array(4) };
    requireTensors(checkpoint, [weight(qkv, [8, 4]), weight(['model.norm.weight'], [4]), constant]);
  });

  it('names all that are missing', async () => {
    using folder = tinyFolder();
    const checkpoint = await openCheckpoint(folder.path);
    const weights = [
      weight([...qkv, 'a'], [8, 4]),
      ...Array.from({ length: 9 }, (_, i) => weight([`b${i}`], [1])),
    ];
    const fails = () => requireTensors(checkpoint, weights);
    expect(fails).toThrow(expect.objectContaining({ code: 'config.weights-missing' }));
    expect(fails).toThrow(
      'lacks 10 of 13 tensors that its configuration calls for: a; b0; b1; b2; b3; b4; b5; b6; and 2 more',
    );
  });

  it('names shapes that contradict the configuration', async () => {
    using folder = tinyFolder();
    const checkpoint = await openCheckpoint(folder.path);
    const fails = () => requireTensors(checkpoint, [weight(qkv, [8, 5]), weight(['model.norm.weight'], [5])]);
    expect(fails).toThrow(expect.objectContaining({ code: 'config.weights-invalid' }));
    expect(fails).toThrow(
      `2 weights have shapes that contradict the configuration: ${qkv[0]} [4, 4] + ${qkv[1]} [2, 4]`,
    );
    expect(fails).toThrow('expected [8, 5] together; model.norm.weight [4], expected [5]');
  });

  it('names types that cannot be loaded', async () => {
    const eight = { dtype: 'F8_E4M3', shape: [4], data: new Uint8Array(4) };
    using folder = tinyFolder(tinyLlama, { ...f32Tensors(tinyLlamaTensors), 'model.norm.weight': eight });
    const checkpoint = await openCheckpoint(folder.path);
    const fails = () => requireTensors(checkpoint, [weight(['model.norm.weight'], [4])]);
    expect(fails).toThrow(expect.objectContaining({ code: 'unsupported.dtype' }));
    expect(fails).toThrow('model.norm.weight (F8_E4M3) cannot be loaded; supported: F32, F16, BF16');
  });
});
