import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  gguf, ggufFile, string, temporaryFolder, tinyLlamaGguf, u32, u64, u8, type GgufContents,
} from '../../tests/fixtures/model-files.js'; // prettier-ignore
import { TenonError } from '../errors.js';
import type { Checkpoint } from './checkpoint.js';
import { huggingFaceName } from './gguf-model.js';
import { readGguf } from './gguf.js';
import { openCheckpoint, type OpenCheckpointOptions } from './open-checkpoint.js';

async function open(contents: GgufContents, options: OpenCheckpointOptions = {}): Promise<Checkpoint> {
  using folder = temporaryFolder();
  return await openCheckpoint(folder.write('tiny.gguf', ggufFile(contents)), options);
}

const failure = async (contents: GgufContents): Promise<TenonError> => {
  const error: unknown = await open(contents).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(TenonError);
  return error as TenonError;
};

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);

describe('readGguf', () => {
  it.each([2, 3])('reads metadata of every type, version %i', (version) => {
    using folder = temporaryFolder();
    const f64 = Buffer.alloc(8);
    f64.writeDoubleLE(0.1);
    const metadata = {
      u8: Buffer.concat([u32(0), u8(200)]),
      i8: Buffer.concat([u32(1), u8(200)]),
      u16: Buffer.concat([u32(2), Buffer.from([1, 2])]),
      i16: Buffer.concat([u32(3), Buffer.from([0, 0x80])]),
      u32: gguf.u32(4e9),
      i32: Buffer.concat([u32(5), Buffer.from([255, 255, 255, 255])]),
      f32: gguf.f32(0.5),
      bool: gguf.bool(true),
      string: gguf.string('größe'),
      u64: Buffer.concat([u32(10), u64(2 ** 40)]),
      i64: Buffer.concat([u32(11), u64(2n ** 64n - 2n)]),
      f64: Buffer.concat([u32(12), f64]),
      strings: gguf.strings(['a', '']),
      nested: Buffer.concat([u32(9), u32(9), u64(2), u32(4), u64(1), u32(7), u32(0), u64(0)]),
      ['__proto__']: gguf.u32(1),
    };
    const file = folder.write('x.gguf', ggufFile({ version, metadata, tensors: {} }));
    expect(Object.entries(readGguf(file).metadata)).toEqual([
      ['u8', 200],
      ['i8', -56],
      ['u16', 513],
      ['i16', -32768],
      ['u32', 4e9],
      ['i32', -1],
      ['f32', 0.5],
      ['bool', true],
      ['string', 'größe'],
      ['u64', 2 ** 40],
      ['i64', -2],
      ['f64', 0.1],
      ['strings', ['a', '']],
      ['nested', [[7], []]],
      ['__proto__', 1],
    ]);
  });

  it('reverses shapes to row-major and finds the data behind the padding', () => {
    using folder = temporaryFolder();
    const bytes = ggufFile({
      metadata: {},
      tensors: { a: { shape: [2, 3], data: floats(1, 2, 3, 4, 5, 6) } },
    });
    const file = folder.write('x.gguf', bytes);
    const location = readGguf(file).tensors.get('a')!;
    expect(location).toMatchObject({ name: 'a', file, dtype: 'F32', shape: [2, 3], sizeBytes: 24 });
    expect(bytes.readFloatLE(location.offset)).toBe(1);
  });

  const data = new Uint8Array(64);
  it.each<[string, Partial<GgufContents>, string]>([
    ['version 1', { version: 1 }, 'is of version 1; expected little-endian GGUF of version 2 or 3'],
    ['big-endian files', { version: 0x03000000 }, 'is big-endian'],
    ['absurd tensor counts', { numTensors: 1e15 }, 'announces 1000000000000000 tensors'],
    [
      'an alignment of 3',
      { metadata: { 'general.alignment': gguf.u32(3) } },
      'general.alignment 3; expected a power of two',
    ],
    ['an alignment of text', { metadata: { 'general.alignment': gguf.string('x') } }, 'general.alignment x'],
    ['unknown metadata types', { metadata: { x: u32(99) } }, 'metadata x of unknown type 99'],
    [
      'absurd array lengths',
      { metadata: { x: Buffer.concat([u32(9), u32(4), u64(2n ** 60n)]) } },
      'values for metadata x',
    ],
    [
      'absurd string lengths',
      { metadata: { x: Buffer.concat([u32(8), u64(2n ** 60n)]) } },
      'has a string of',
    ],
    [
      'arrays in arrays without end',
      {
        metadata: {
          x: Buffer.concat([u32(9), ...Array.from({ length: 9 }, () => Buffer.concat([u32(9), u64(1)]))]),
        },
      },
      'nested over 4 arrays deep',
    ],
    ['five dimensions', { tensors: { x: { shape: [1, 1, 1, 1, 1], data } } }, 'tensor x has 5 dimensions'],
    [
      'overflowing shapes',
      { tensors: { x: { shape: [2 ** 30, 2 ** 30], data } } },
      'tensor x of F32 has shape',
    ],
    [
      'rows that are no whole blocks',
      { tensors: { x: { shape: [4, 8], type: 2, data } } },
      'x of Q4_0 has shape [4, 8]; expected rows of 32s',
    ],
    [
      'unaligned tensors',
      { tensors: { x: { shape: [1], data, offset: 3 } } },
      'x is at 3; expected a multiple of 32',
    ],
    ['tensors outside the file', { tensors: { x: { shape: [64], data, offset: 32 } } }, 'it is truncated'],
    [
      'overlaps',
      { tensors: { x: { shape: [16], data }, y: { shape: [16], data, offset: 32 } } },
      'tensor y at byte',
    ],
  ])('refuses %s', (_, contents, message) => {
    using folder = temporaryFolder();
    const file = folder.write('x.gguf', ggufFile({ metadata: {}, tensors: {}, ...contents }));
    expect(() => readGguf(file)).toThrow(expect.objectContaining({ code: 'config.weights-invalid' }));
    expect(() => readGguf(file)).toThrow(message);
  });

  it('refuses keys that are there twice', () => {
    using folder = temporaryFolder();
    const twice = Buffer.concat([string('x'), gguf.u32(1), string('x'), gguf.u32(1)]);
    const file = folder.write('x.gguf', Buffer.concat([Buffer.from('GGUF'), u32(3), u64(0), u64(2), twice]));
    expect(() => readGguf(file)).toThrow('has the metadata key x twice');
  });

  it.each([
    [16, 'IQ2_XXS'],
    [39, 'MXFP4'],
    [77, 'number 77'],
  ])('names the block format %i', (type, name) => {
    using folder = temporaryFolder();
    const file = folder.write(
      'x.gguf',
      ggufFile({ metadata: {}, tensors: { x: { shape: [256], type, data } } }),
    );
    expect(() => readGguf(file)).toThrow(expect.objectContaining({ code: 'unsupported.quantization' }));
    expect(() => readGguf(file)).toThrow(
      `tensor x is stored as ${name}, which is not supported; supported: F32, F16`,
    );
  });
});

describe('a GGUF model', () => {
  it('reads as the Hugging Face model that it was made from', async () => {
    const { config, locations, format, tokenizerSource } = await open(tinyLlamaGguf());
    expect(format).toBe('gguf');
    expect(config).toEqual({
      architecture: 'LlamaForCausalLM', vocabSize: 8, hiddenSize: 4, numLayers: 1, numHeads: 2, numKvHeads: 1, headDim: 2,
      intermediateSize: 6, activation: 'silu', rmsNormEps: Math.fround(1e-5), maxPositionEmbeddings: 32, ropeTheta: 10000,
      ropeScaling: { type: 'default' }, rotaryDim: 2, ropeInterleaved: true, tieWordEmbeddings: true, qkvBias: false,
      attentionOutputBias: false, mlpBias: false, slidingWindows: [0], checkpointDtype: 'f32', bosTokenId: 1, eosTokenIds: [2],
    }); // prettier-ignore
    expect([...locations.keys()]).toContain('model.layers.0.self_attn.q_proj.weight');
    expect(locations.get('model.layers.0.mlp.down_proj.weight')).toMatchObject({
      name: 'model.layers.0.mlp.down_proj.weight',
      shape: [4, 6],
    });
    expect(tokenizerSource).toMatchObject({ kind: 'gguf', metadata: { 'tokenizer.ggml.bos_token_id': 1 } });
  });

  it('reads values', async () => {
    using folder = temporaryFolder();
    const tensors = { 'output_norm.weight': { shape: [4], data: floats(1, -2, 3, 4) } };
    const checkpoint = await openCheckpoint(folder.write('x.gguf', ggufFile(tinyLlamaGguf({ tensors }))));
    expect([...(await checkpoint.read('model.norm.weight'))]).toEqual([1, -2, 3, 4]);
  });

  it.each([
    ['qwen2', 'Qwen2ForCausalLM'],
    ['qwen3', 'Qwen3ForCausalLM'],
  ])('pairs the halves of a head for %s', async (architecture, name) => {
    const { metadata } = tinyLlamaGguf();
    const renamed = Object.entries(metadata).map(([key, value]) => [
      key.replace('llama.', `${architecture}.`),
      value,
    ]);
    const { config } = await open({
      ...tinyLlamaGguf(),
      metadata: {
        ...(Object.fromEntries(renamed) as Record<string, Uint8Array>),
        'general.architecture': gguf.string(architecture),
        [`${architecture}.attention.sliding_window`]: gguf.u32(4),
      },
    });
    expect(config).toMatchObject({
      architecture: name,
      ropeInterleaved: false,
      headDim: 2,
      slidingWindows: [0],
    });
  });

  it('takes biases, an own output and end tokens as they are there', async () => {
    const { config } = await open(
      tinyLlamaGguf({
        metadata: {
          'tokenizer.ggml.eot_token_id': gguf.u32(5),
          'tokenizer.ggml.eom_token_id': gguf.u32(2),
          'general.sampling.temp': gguf.f32(0.5),
        },
        tensors: {
          'output.weight': { shape: [8, 4], data: new Uint8Array(128) },
          'blk.0.attn_q.bias': { shape: [4], data: new Uint8Array(16) },
        },
      }),
    );
    expect(config).toMatchObject({
      tieWordEmbeddings: false,
      qkvBias: true,
      attentionOutputBias: false,
      eosTokenIds: [2, 5],
    });
  });

  it('reads rope scaling, partial rotation and windows', async () => {
    const read = async (metadata: Record<string, Uint8Array>) =>
      (await open(tinyLlamaGguf({ metadata }))).config;
    const head = { 'llama.attention.key_length': gguf.u32(8), 'llama.attention.value_length': gguf.u32(8) };
    expect(await read({ ...head, 'llama.rope.dimension_count': gguf.u32(6) })).toMatchObject({
      headDim: 8,
      rotaryDim: 6,
    });
    expect(
      await read({
        'llama.rope.scaling.type': gguf.string('linear'),
        'llama.rope.scaling.factor': gguf.f32(4),
      }),
    ).toMatchObject({ ropeScaling: { type: 'linear', factor: 4 } });
    expect(await read({ 'llama.rope.scale_linear': gguf.f32(2) })).toMatchObject({
      ropeScaling: { type: 'linear', factor: 2 },
    });
    expect(
      await read({ 'llama.rope.scaling.type': gguf.string('none'), 'llama.rope.freq_base': gguf.f32(5e5) }),
    ).toMatchObject({
      ropeScaling: { type: 'default' },
      ropeTheta: 5e5,
    });
    expect(
      await read({
        'llama.rope.scaling.type': gguf.string('yarn'),
        'llama.rope.scaling.factor': gguf.f32(4),
        'llama.rope.scaling.original_context_length': gguf.u32(8),
      }),
    ).toMatchObject({
      ropeScaling: { type: 'yarn', factor: 4, originalMaxPosition: 8, attentionFactor: undefined },
    });
    expect(await read({ 'llama.attention.sliding_window': gguf.u32(4) })).toMatchObject({
      architecture: 'MistralForCausalLM',
      slidingWindows: [4],
    });
  });

  it('takes rope_freqs as divisors', async () => {
    const tensors = { 'rope_freqs.weight': { shape: [1], data: floats(8) } };
    const { config, locations } = await open(tinyLlamaGguf({ tensors }));
    expect(config.ropeScaling).toEqual({ type: 'factors', factors: Float32Array.of(8) });
    expect([...locations.keys()].filter((name) => name.includes('rope'))).toEqual([]);
    expect(
      (await failure(tinyLlamaGguf({ tensors: { 'rope_freqs.weight': { shape: [1], data: floats(0) } } })))
        .message,
    ).toContain('values that are not positive');
    expect(
      (await failure(tinyLlamaGguf({ tensors: { 'rope_freqs.weight': { shape: [2], data: floats(1, 1) } } })))
        .message,
    ).toContain('has shape [2]; expected [1]');
  });

  it('lets overrides change the configuration', async () => {
    const { config } = await open(tinyLlamaGguf(), {
      hfOverrides: { max_position_embeddings: 16, rope_parameters: { rope_theta: 7 } },
    });
    expect(config).toMatchObject({ maxPositionEmbeddings: 16, ropeTheta: 7 });
  });

  it.each<[string, Record<string, Uint8Array>, string, string]>([
    ['architecture', { 'general.architecture': gguf.string('mamba') }, 'unsupported.architecture', 'architecture mamba is not supported; supported in GGUF: llama, qwen2, qwen3'],
    ['mixture of experts', { 'llama.expert_count': gguf.u32(8) }, 'unsupported.model-feature', 'llama.expert_count 8'],
    ['rope type', { 'llama.rope.scaling.type': gguf.string('longrope') }, 'unsupported.model-feature', 'llama.rope.scaling.type "longrope"'],
    ['layers of several sizes', { 'llama.attention.head_count': gguf.u32s([2, 4]) }, 'unsupported.model-feature', 'llama.attention.head_count differs between layers'],
    ['values of another width', { 'llama.attention.key_length': gguf.u32(2), 'llama.attention.value_length': gguf.u32(4) }, 'unsupported.model-feature', 'value_length 4'],
    ['split files', { 'split.count': gguf.u32(3) }, 'unsupported.model-feature', 'split.count 3'],
    ['negative size', { 'llama.embedding_length': Buffer.concat([u32(5), Buffer.from([255, 255, 255, 255])]) }, 'config.model-invalid', 'llama.embedding_length is -1'],
    ['size of text', { 'llama.block_count': gguf.string('x') }, 'config.model-invalid', 'llama.block_count is "x"'],
    ['not a number', { 'llama.attention.layer_norm_rms_epsilon': gguf.f32(NaN) }, 'config.model-invalid', 'llama.attention.layer_norm_rms_epsilon is NaN'],
    ['heads that do not divide', { 'llama.attention.head_count_kv': gguf.u32(3) }, 'config.model-invalid', 'llama.attention.head_count_kv is 3; expected a divisor'],
  ])('refuses by name: %s', async (_, metadata, code, message) => {
    const error = await failure(tinyLlamaGguf({ metadata }));
    expect(error.code).toBe(code);
    expect(error.message).toContain(message);
  }); // prettier-ignore

  it('refuses tensors of parts that it does not know', async () => {
    const tensors = { 'blk.0.ssm_a.weight': { shape: [1], data: floats(1) } };
    expect(await failure(tinyLlamaGguf({ tensors }))).toMatchObject({
      code: 'unsupported.model-feature',
      message: expect.stringContaining('tensor blk.0.ssm_a.weight'),
    });
  });

  it('maps names', () => {
    expect(huggingFaceName('blk.12.attn_k_norm.weight')).toBe('model.layers.12.self_attn.k_norm.weight');
    expect(huggingFaceName('output.weight')).toBe('lm_head.weight');
    expect(huggingFaceName('blk.0.output.weight')).toBeUndefined();
    expect(huggingFaceName('toString.weight')).toBeUndefined();
  });

  it('refuses or reads, and never crashes, when cut anywhere or garbled', async () => {
    const whole = ggufFile(tinyLlamaGguf());
    using folder = temporaryFolder();
    const opens = async (bytes: Uint8Array) => {
      try {
        await openCheckpoint(folder.write('x.gguf', bytes));
        return true;
      } catch (error) {
        expect(error).toBeInstanceOf(TenonError);
        expect((error as TenonError).kind).toMatch(/^(config|unsupported)$/);
        return false;
      }
    };
    expect(await opens(whole)).toBe(true);
    for (let length = 0; length < whole.length - 32; length += 5)
      expect(await opens(whole.subarray(0, length))).toBe(false);
    const garbled = fc.record({
      at: fc.nat(whole.length - 1),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 9 }),
    });
    await fc.assert(
      fc.asyncProperty(garbled, async ({ at, bytes }) => {
        const copy = Uint8Array.from(whole);
        copy.set(bytes.subarray(0, copy.length - at), at);
        await opens(copy);
      }),
      { numRuns: 500 },
    );
  });
});
