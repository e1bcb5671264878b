import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tinyLlama } from '../../tests/fixtures/model-files.js';
import { TenonError } from '../errors.js';
import { supportedArchitectures } from '../models/registry.js';
import { configuredArchitectures, mergeOverrides, parseModelConfig } from './config.js';
import type { JsonObject } from './fields.js';
import { parseGenerationDefaults, parseGenerationEosTokenIds } from './generation-config.js';

const parse = (raw: JsonObject) => parseModelConfig(raw, { source: 'config.json' });
/** tinyLlama with other fields; undefined removes one. */
const llama = (fields: JsonObject) => parse({ ...tinyLlama, ...fields });
const model = (architecture: string, fields: JsonObject = {}) =>
  llama({ architectures: [architecture], num_hidden_layers: 3, ...fields });

describe('parseModelConfig', () => {
  it('knows the architectures that there are models for', () => {
    expect(configuredArchitectures).toEqual(supportedArchitectures);
  });

  it("assumes nothing about a package's architecture that its configuration does not say", () => {
    const foreign = (fields: JsonObject) =>
      parseModelConfig(
        { ...tinyLlama, ...fields },
        { source: 'config.json', foreignArchitecture: 'ToyModel' },
      );
    const config = foreign({ num_hidden_layers: 2, sliding_window: 16, eos_token_id: undefined, bos_token_id: undefined }); // prettier-ignore
    expect(config).toMatchObject({
      architecture: 'ToyModel',
      slidingWindows: [16, 16],
      eosTokenIds: [],
      bosTokenId: undefined,
      qkvBias: false,
    });
    const layer_types = ['full_attention', 'sliding_attention'];
    expect(foreign({ num_hidden_layers: 2, sliding_window: 16, layer_types }).slidingWindows).toEqual([
      0, 16,
    ]);
    expect(() => foreign({ max_position_embeddings: undefined })).toThrow(
      'max_position_embeddings is missing',
    );
    expect(() => foreign({ final_logit_softcapping: 30 })).toThrow(
      'final_logit_softcapping 30 is not supported',
    );
  });

  it('reads a whole config', () => {
    expect(parse(tinyLlama)).toEqual({
      architecture: 'LlamaForCausalLM',
      vocabSize: 8,
      hiddenSize: 4,
      numLayers: 1,
      numHeads: 2,
      numKvHeads: 1,
      headDim: 2,
      intermediateSize: 6,
      activation: 'silu',
      rmsNormEps: 1e-5,
      maxPositionEmbeddings: 32,
      ropeTheta: 10000,
      ropeScaling: { type: 'default' },
      rotaryDim: 2,
      ropeInterleaved: false,
      tieWordEmbeddings: false,
      qkvBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      slidingWindows: [0],
      checkpointDtype: 'f32',
      bosTokenId: 1,
      eosTokenIds: [2],
    });
  });

  it.each([
    ['default', { rope_scaling: null, rope_theta: 5e5 }, { rope_type: 'default', rope_theta: 5e5 }],
    [
      'linear',
      { rope_scaling: { type: 'linear', factor: 4 }, rope_theta: 5e5 },
      { rope_type: 'linear', factor: 4, rope_theta: 5e5 },
    ],
    [
      'dynamic',
      { rope_scaling: { type: 'dynamic', factor: 2 }, rope_theta: 1e4 },
      { rope_type: 'dynamic', factor: 2, rope_theta: 1e4 },
    ],
    [
      'yarn',
      {
        rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 8, beta_fast: 0 },
        rope_theta: 1e6,
      },
      { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 8, rope_theta: 1e6 },
    ],
  ])('reads %s rope alike in both spellings', (type, classic, parameters) => {
    const read = llama({ torch_dtype: 'bfloat16', ...classic });
    expect(
      llama({
        rope_theta: undefined,
        torch_dtype: undefined,
        dtype: 'bfloat16',
        rope_parameters: parameters,
      }),
    ).toEqual(read);
    expect(read.ropeScaling.type).toBe(type);
    expect(read.ropeTheta).toBe(parameters.rope_theta);
    expect(read.checkpointDtype).toBe('bf16');
  });

  it('fills in what rope scaling leaves open as Hugging Face does', () => {
    expect(llama({ rope_scaling: { rope_type: 'yarn', factor: 4 } }).ropeScaling).toEqual({
      type: 'yarn',
      factor: 4,
      originalMaxPosition: 32,
      betaFast: 32,
      betaSlow: 1,
      attentionFactor: undefined,
      mscale: undefined,
      mscaleAllDim: undefined,
      truncate: true,
    });
    expect(
      llama({ rope_scaling: { type: 'yarn', original_max_position_embeddings: 8 } }).ropeScaling,
    ).toMatchObject({ factor: 4 });
    expect(
      llama({ rope_scaling: { type: 'dynamic', factor: 2, original_max_position_embeddings: 8 } })
        .ropeScaling,
    ).toEqual({
      type: 'dynamic',
      factor: 2,
      originalMaxPosition: 32,
    });
    const llama3 = {
      type: 'linear',
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
    };
    expect(llama({ rope_scaling: llama3 }).ropeScaling).toEqual({
      type: 'llama3',
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPosition: 32,
    });
    expect(llama({ rope_scaling: llama3, original_max_position_embeddings: 16 }).ropeScaling).toMatchObject({
      originalMaxPosition: 16,
    });
  });

  it('accepts rotary settings per layer type where the layers agree', () => {
    const full = { rope_type: 'linear', factor: 2, rope_theta: 77 };
    const types = ['full_attention', 'sliding_attention', 'full_attention'];
    const read = (sliding: unknown, layer_types = types) =>
      model('MistralForCausalLM', {
        sliding_window: 4, layer_types, rope_parameters: { full_attention: full, sliding_attention: sliding },
      }); // prettier-ignore
    expect(read({ ...full })).toMatchObject({ ropeTheta: 77, ropeScaling: { type: 'linear', factor: 2 } });
    expect(read({ rope_theta: 1 }, types.fill('full_attention', 1, 2))).toMatchObject({ ropeTheta: 77 });
    types[1] = 'sliding_attention';
    for (const other of [{ ...full, rope_theta: 78 }, null]) {
      expect(() => read(other)).toThrow('same rotary settings for all layers');
    }
  });

  it('rotates part of a head', () => {
    const wide = { hidden_size: 192, num_attention_heads: 2 };
    expect(llama({ ...wide, partial_rotary_factor: 0.5 }).rotaryDim).toBe(48);
    expect(llama({ ...wide, rope_parameters: { partial_rotary_factor: 80 / 96 } }).rotaryDim).toBe(80);
    expect(llama({ ...wide, rotary_pct: 0.25 }).rotaryDim).toBe(24);
  });

  it('takes the defaults of each config class', () => {
    const bare = {
      num_key_value_heads: undefined,
      max_position_embeddings: undefined,
      rms_norm_eps: undefined,
      rope_theta: undefined,
    };
    const ends = { bos_token_id: undefined, eos_token_id: undefined };
    const sizes = { hidden_size: 64, num_attention_heads: 16, torch_dtype: undefined };
    const defaults = (architecture: string) => model(architecture, { ...bare, ...ends, ...sizes });
    expect(defaults('LlamaForCausalLM')).toMatchObject({
      numKvHeads: 16, headDim: 4, maxPositionEmbeddings: 2048, rmsNormEps: 1e-6, ropeTheta: 10000,
      bosTokenId: 1, eosTokenIds: [2], slidingWindows: [0, 0, 0], tieWordEmbeddings: false, checkpointDtype: 'f32',
    }); // prettier-ignore
    expect(defaults('MistralForCausalLM')).toMatchObject({
      numKvHeads: 8, maxPositionEmbeddings: 131072, slidingWindows: [4096, 4096, 4096],
    }); // prettier-ignore
    expect(defaults('Qwen2ForCausalLM')).toMatchObject({
      headDim: 4, maxPositionEmbeddings: 32768, bosTokenId: undefined, eosTokenIds: [], qkvBias: true,
      attentionOutputBias: false, slidingWindows: [0, 0, 0],
    }); // prettier-ignore
    expect(defaults('Qwen3ForCausalLM')).toMatchObject({ headDim: 128, qkvBias: false });
  });

  it('finds the architecture by model_type where none is named', () => {
    expect(llama({ architectures: undefined, model_type: 'qwen3', head_dim: 2 }).architecture).toBe(
      'Qwen3ForCausalLM',
    );
  });

  it('knows where biases are', () => {
    const biased = { attention_bias: true, mlp_bias: true };
    const biases = (architecture: string) => {
      const { qkvBias, attentionOutputBias, mlpBias } = model(architecture, biased);
      return [qkvBias, attentionOutputBias, mlpBias];
    };
    expect(biases('LlamaForCausalLM')).toEqual([true, true, true]);
    expect(biases('MistralForCausalLM')).toEqual([false, false, false]);
    expect(biases('Qwen2ForCausalLM')).toEqual([true, false, false]);
    expect(biases('Qwen3ForCausalLM')).toEqual([true, true, false]);
  });

  it('gives each layer its window', () => {
    const windows = (architecture: string, fields: JsonObject) => model(architecture, fields).slidingWindows;
    const types = ['full_attention', 'sliding_attention', 'full_attention'];
    expect(windows('MistralForCausalLM', { sliding_window: 7 })).toEqual([7, 7, 7]);
    expect(windows('MistralForCausalLM', { sliding_window: null })).toEqual([0, 0, 0]);
    expect(windows('MistralForCausalLM', { sliding_window: 7, layer_types: types })).toEqual([0, 7, 0]);
    expect(windows('LlamaForCausalLM', { sliding_window: 7 })).toEqual([0, 0, 0]);
    const qwen = { use_sliding_window: true, sliding_window: 7, max_window_layers: 1 };
    expect(windows('Qwen2ForCausalLM', qwen)).toEqual([0, 7, 7]);
    expect(windows('Qwen3ForCausalLM', { ...qwen, max_window_layers: undefined })).toEqual([0, 0, 0]);
    expect(windows('Qwen3ForCausalLM', { ...qwen, layer_types: types })).toEqual([0, 7, 0]);
    expect(windows('Qwen2ForCausalLM', { ...qwen, use_sliding_window: false })).toEqual([0, 0, 0]);
    expect(windows('Qwen2ForCausalLM', { sliding_window: 0, use_sliding_window: false })).toEqual([0, 0, 0]);
  });

  it.each([
    ['silu', 'silu'], ['swish', 'silu'], ['gelu', 'gelu'], ['gelu_new', 'gelu_tanh'], ['gelu_pytorch_tanh', 'gelu_tanh'],
  ])('maps the activation %s to %s', (name, activation) => {
    expect(llama({ hidden_act: name }).activation).toBe(activation);
  }); // prettier-ignore

  it('takes end tokens as one, as a list and as none', () => {
    expect(llama({ eos_token_id: [2, 5] }).eosTokenIds).toEqual([2, 5]);
    expect(llama({ eos_token_id: null, bos_token_id: null })).toMatchObject({
      eosTokenIds: [],
      bosTokenId: undefined,
    });
  });

  it.each<[JsonObject, string, string]>([
    [{ hidden_size: undefined }, 'hidden_size is missing', 'hidden_size'],
    [{ hidden_size: -4 }, 'hidden_size is -4; expected an integer from 1 to 1048576', 'hidden_size'],
    [{ hidden_size: '4' }, 'hidden_size is "4"', 'hidden_size'],
    [{ hidden_size: 4.5 }, 'hidden_size is 4.5', 'hidden_size'],
    [{ hidden_size: 1e300 }, 'hidden_size is 1e+300', 'hidden_size'],
    [{ num_hidden_layers: 0 }, 'num_hidden_layers is 0', 'num_hidden_layers'],
    [{ num_hidden_layers: 1e9 }, 'num_hidden_layers is 1000000000', 'num_hidden_layers'],
    [{ vocab_size: true }, 'vocab_size is true', 'vocab_size'],
    [{ intermediate_size: [6] }, 'intermediate_size is [6]', 'intermediate_size'],
    [
      { num_attention_heads: 3, num_key_value_heads: 3 },
      'hidden_size is 4; expected a multiple of num_attention_heads 3',
      'hidden_size',
    ],
    [
      { num_attention_heads: 4, num_key_value_heads: 3 },
      'num_key_value_heads is 3; expected a divisor of num_attention_heads 4',
      'num_key_value_heads',
    ],
    [{ head_dim: 3 }, 'head_dim is 3; expected head_dim to be even', 'head_dim'],
    [
      { num_attention_heads: 4, num_key_value_heads: 4 },
      'hidden_size is 4; expected head_dim to be even',
      'hidden_size',
    ],
    [{ rms_norm_eps: '1e-5' }, 'rms_norm_eps is "1e-5"', 'rms_norm_eps'],
    [{ rope_theta: 0 }, 'rope_theta is 0', 'rope_theta'],
    [{ rope_scaling: 'linear' }, 'rope_scaling is "linear"; expected an object', 'rope_scaling'],
    [{ rope_scaling: { type: 'linear' } }, 'rope_scaling.factor is missing', 'factor'],
    [
      { rope_scaling: { type: 'llama3', factor: 2, low_freq_factor: 4, high_freq_factor: 4 } },
      'rope_scaling.high_freq_factor is 4; expected more than low_freq_factor 4',
      'high_freq_factor',
    ],
    [{ rope_parameters: { rope_theta: 'x' } }, 'rope_parameters.rope_theta is "x"', 'rope_theta'],
    [{ partial_rotary_factor: 1.5 }, 'partial_rotary_factor is 1.5', 'partial_rotary_factor'],
    [
      { partial_rotary_factor: 0.1 },
      'partial_rotary_factor is 0.1; expected a share of head_dim 2',
      'partial_rotary_factor',
    ],
    [
      { tie_word_embeddings: 'yes' },
      'tie_word_embeddings is "yes"; expected true or false',
      'tie_word_embeddings',
    ],
    [
      { layer_types: ['full_attention', 'full_attention'] },
      'expected 1 entries, as num_hidden_layers says, not 2',
      'layer_types',
    ],
    [
      { layer_types: ['sliding_attention'] },
      'sliding_window is missing; expected a window in tokens',
      'sliding_window',
    ],
    [{ eos_token_id: [2, 'x'] }, 'eos_token_id is [2,"x"]', 'eos_token_id'],
    [
      { architectures: 'LlamaForCausalLM' },
      'architectures is "LlamaForCausalLM"; expected a list of strings',
      'architectures',
    ],
  ])('refuses %j', (fields, message, param) => {
    expect(() => llama(fields)).toThrow(expect.objectContaining({ code: 'config.model-invalid', param }));
    expect(() => llama(fields)).toThrow(`config.json: `);
    expect(() => llama(fields)).toThrow(message);
  });

  it.each<[JsonObject, string, string]>([
    [
      { architectures: ['GPT2LMHeadModel'] },
      'unsupported.architecture',
      'architecture GPT2LMHeadModel is not supported; supported: LlamaForCausalLM',
    ],
    [{ architectures: ['toString'] }, 'unsupported.architecture', 'architecture toString'],
    [{ architectures: undefined }, 'unsupported.architecture', 'architecture none named'],
    [
      { quantization_config: { quant_method: 'gptq' } },
      'unsupported.quantization',
      'quantization_config gptq is not supported',
    ],
    [
      { rope_scaling: { type: 'longrope' } },
      'unsupported.model-feature',
      'rope_scaling.type "longrope" is not supported; supported: default, linear',
    ],
    [
      { rope_scaling: { type: 'default', mrope_section: [1] } },
      'unsupported.model-feature',
      'without alpha, mrope_section',
    ],
    [
      { hidden_act: 'relu2' },
      'unsupported.model-feature',
      'hidden_act "relu2" is not supported; supported: silu',
    ],
    [
      { layer_types: ['chunked_attention'] },
      'unsupported.model-feature',
      'layer_types ["chunked_attention"]',
    ],
    [
      { final_logit_softcapping: 30 },
      'unsupported.model-feature',
      'final_logit_softcapping 30 is not supported; supported: 0 or absent',
    ],
    [{ torch_dtype: 'float64' }, 'unsupported.dtype', 'torch_dtype float64'],
  ])('does not support %j', (fields, code, message) => {
    expect(() => llama(fields)).toThrow(expect.objectContaining({ code }));
    expect(() => llama(fields)).toThrow(message);
  });

  it('answers any value of any field with a config or an error of ours', () => {
    const names = [
      ...Object.keys(tinyLlama), 'head_dim', 'rope_scaling', 'rope_parameters', 'layer_types', 'sliding_window', 'dtype',
      'hidden_act', 'attention_bias', 'tie_word_embeddings', 'quantization_config', 'partial_rotary_factor',
    ]; // prettier-ignore
    const ropes = fc.dictionary(
      fc.constantFrom('rope_type', 'type', 'factor', 'rope_theta', 'full_attention'),
      fc.jsonValue(),
    );
    const fields = fc.dictionary(fc.constantFrom(...names), fc.oneof(fc.jsonValue(), ropes));
    const property = fc.property(fields, (changes) => {
      try {
        llama(changes as JsonObject);
      } catch (error) {
        expect(error).toBeInstanceOf(TenonError);
        expect((error as TenonError).code).toMatch(/^(config\.model-invalid|unsupported\.)/);
      }
    });
    fc.assert(property, { numRuns: 2000 });
  });
});

describe('mergeOverrides', () => {
  it('merges objects and replaces the rest', () => {
    const config = { a: 1, rope: { type: 'linear', factor: 2 }, list: [1, 2] };
    expect(mergeOverrides(config, { a: null, rope: { factor: 4 }, list: [3], new: {} })).toEqual({
      a: null,
      rope: { type: 'linear', factor: 4 },
      list: [3],
      new: {},
    });
    expect(config.rope.factor).toBe(2);
  });
});

describe('generation_config.json', () => {
  it('gives what vLLM takes, whatever do_sample says', () => {
    const raw = {
      do_sample: false, temperature: 0.6, top_p: 0.9, top_k: 20, min_p: 0.1, repetition_penalty: 1.1, max_new_tokens: 5,
      max_length: 99, num_beams: 4,
    }; // prettier-ignore
    expect(parseGenerationDefaults(raw, 'x')).toEqual({
      temperature: 0.6, topP: 0.9, topK: 20, minP: 0.1, repetitionPenalty: 1.1, maxTokens: 5,
    }); // prettier-ignore
  });

  it('leaves absent what is null', () => {
    expect(parseGenerationDefaults({ temperature: null, top_k: -1 }, 'x')).toEqual({ topK: 0 });
  });

  it('refuses wrong values', () => {
    expect(() => parseGenerationDefaults({ top_p: 2 }, 'generation_config.json')).toThrow(
      'generation_config.json: top_p is 2',
    );
    expect(() => parseGenerationEosTokenIds({ eos_token_id: 'x' }, 'y')).toThrow('eos_token_id is "x"');
  });

  it('reads end tokens', () => {
    expect(parseGenerationEosTokenIds({ eos_token_id: [1, 2] }, 'x')).toEqual([1, 2]);
    expect(parseGenerationEosTokenIds({}, 'x')).toEqual([]);
  });
});
