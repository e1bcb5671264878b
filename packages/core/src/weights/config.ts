/** config.json, in its classic and its transformers 5 spelling, as a complete and checked ModelConfig. */
import type { Activation, Dtype } from '../backend/index.js';
import { TenonError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import { Fields, isJsonObject, type JsonObject } from './fields.js';
import { parseRope } from './rope.js';

export interface ConfigOptions {
  /** The file, for messages. */
  readonly source: string;
  /** How messages spell a field, where the file is not a config.json. */
  readonly label?: (field: string) => string;
  /** The tensors' own type, for configs that name none. */
  readonly tensorDtype?: Dtype;
  /** An architecture of a package's, whose config says things as Llama's does. */
  readonly foreignArchitecture?: string | undefined;
}

/** What differs between the architectures' config classes (defaults as in transformers 5.17). */
interface Family {
  /** Undefined: the field must be there. */
  readonly maxPositionEmbeddings?: number;
  readonly bosTokenId?: number;
  readonly eosTokenIds: readonly number[];
  /** Undefined: hidden_size / num_attention_heads. */
  readonly headDim?: number;
  /** Undefined: num_attention_heads. */
  readonly numKvHeads?: number;
  readonly biases: (config: Fields) => Pick<ModelConfig, 'qkvBias' | 'attentionOutputBias' | 'mlpBias'>;
  /** The window of sliding layers; 0: the model has none. */
  readonly window: (config: Fields) => number;
  /** Whether a layer slides, where layer_types does not say. */
  readonly slides: (config: Fields, layer: number) => boolean;
}

const sizes = {
  layers: { min: 1, max: 4096 },
  heads: { min: 1, max: 65_536 },
  headDim: { min: 2, max: 4096 },
  hidden: { min: 1, max: 2 ** 20 },
  intermediate: { min: 1, max: 2 ** 24 },
  vocab: { min: 1, max: 2 ** 24 },
  positions: { min: 1, max: 2 ** 31 - 1 },
  tokenId: { min: 0, max: 2 ** 31 - 1 },
} as const;

const noBiases = { qkvBias: false, attentionOutputBias: false, mlpBias: false };
const attentionBiases = (config: Fields) => {
  const attention = config.boolean('attention_bias', config.boolean('bias', false));
  return { qkvBias: attention, attentionOutputBias: attention, mlpBias: config.boolean('mlp_bias', false) };
};
const qwenSliding: Pick<Family, 'window' | 'slides'> = {
  window: (config) =>
    config.boolean('use_sliding_window', false) && config.raw['sliding_window'] !== null
      ? config.int('sliding_window', sizes.positions, 4096)
      : 0,
  slides: (config, layer) => layer >= config.int('max_window_layers', { min: 0, max: 2 ** 31 - 1 }, 28),
};

const families: Readonly<Record<string, Family & { readonly modelType: string }>> = {
  LlamaForCausalLM: {
    modelType: 'llama',
    maxPositionEmbeddings: 2048,
    bosTokenId: 1,
    eosTokenIds: [2],
    biases: attentionBiases,
    window: (config) => config.int('sliding_window', sizes.positions, 0),
    slides: () => false,
  },
  MistralForCausalLM: {
    modelType: 'mistral',
    maxPositionEmbeddings: 131_072,
    bosTokenId: 1,
    eosTokenIds: [2],
    numKvHeads: 8,
    biases: () => noBiases,
    window: (config) =>
      config.raw['sliding_window'] === null ? 0 : config.int('sliding_window', sizes.positions, 4096),
    slides: () => true,
  },
  Qwen2ForCausalLM: {
    modelType: 'qwen2',
    maxPositionEmbeddings: 32_768,
    eosTokenIds: [],
    biases: () => ({ ...noBiases, qkvBias: true }),
    ...qwenSliding,
  },
  Qwen3ForCausalLM: {
    modelType: 'qwen3',
    maxPositionEmbeddings: 32_768,
    eosTokenIds: [],
    headDim: 128,
    biases: (config) => ({ ...attentionBiases(config), mlpBias: false }),
    ...qwenSliding,
  },
};

/** Packages' own architectures: nothing that the configuration does not say is assumed. */
const foreignFamily: Family = {
  eosTokenIds: [],
  biases: attentionBiases,
  window: (config) => config.int('sliding_window', sizes.positions, 0),
  slides: () => true,
};

/** The same as models/registry.ts has. */
export const configuredArchitectures: readonly string[] = Object.keys(families);

/** Settings that change the result and that no family above has; the value that turns each off. */
const foreignFeatures: Readonly<Record<string, unknown>> = {
  attn_logit_softcapping: 0,
  final_logit_softcapping: 0,
  attention_multiplier: 1,
  embedding_multiplier: 1,
  residual_multiplier: 1,
  logits_scaling: 1,
  logit_scale: 1,
  attention_sinks: false,
  attention_chunk_size: 0,
  alibi: false,
  use_bidirectional_attention: false,
  num_experts: 0,
  num_local_experts: 0,
};

/**
 * The configuration that the object describes.
 * @throws `unsupported.architecture`, `unsupported.quantization`, `unsupported.model-feature`, `unsupported.dtype`, or
 * `config.model-invalid` naming field, value and what was expected.
 */
export function parseModelConfig(raw: JsonObject, options: ConfigOptions): ModelConfig {
  const config = new Fields(raw, options.source, options.label);
  const architecture = options.foreignArchitecture ?? findArchitecture(config);
  const family = options.foreignArchitecture === undefined ? families[architecture]! : foreignFamily;
  refuseQuantization(config);
  refuseForeignFeatures(config);

  const heads = parseHeads(config, family);
  const numLayers = config.int('num_hidden_layers', sizes.layers);
  const maxPositionEmbeddings = config.int(
    'max_position_embeddings',
    sizes.positions,
    family.maxPositionEmbeddings,
  );
  const layerTypes = parseLayerTypes(config, numLayers);
  const [bosTokenId] =
    raw['bos_token_id'] === undefined ? [family.bosTokenId] : config.ints('bos_token_id', sizes.tokenId);
  return {
    architecture,
    vocabSize: config.int('vocab_size', sizes.vocab),
    hiddenSize: config.int('hidden_size', sizes.hidden),
    numLayers,
    ...heads,
    intermediateSize: config.int('intermediate_size', sizes.intermediate),
    activation: parseActivation(config),
    rmsNormEps: config.number('rms_norm_eps', { min: 0, max: 1 }, 1e-6),
    maxPositionEmbeddings,
    ...parseRope(config, { headDim: heads.headDim, maxPositionEmbeddings, layerTypes }),
    ropeInterleaved: false,
    ropeFrequencyDtype: parseDtype(config, ['rope_frequency_dtype']),
    tieWordEmbeddings: config.boolean('tie_word_embeddings', false),
    ...family.biases(config),
    slidingWindows: slidingWindows(config, family, numLayers, layerTypes),
    checkpointDtype: parseDtype(config) ?? options.tensorDtype ?? 'f32',
    bosTokenId,
    eosTokenIds:
      raw['eos_token_id'] === undefined ? family.eosTokenIds : config.ints('eos_token_id', sizes.tokenId),
  };
}

/** `overrides` over `config`: objects are merged, everything else is replaced. */
export function mergeOverrides(config: JsonObject, overrides: JsonObject): JsonObject {
  const merged: Record<string, unknown> = { ...config };
  for (const [name, value] of Object.entries(overrides)) {
    const own = config[name];
    merged[name] = isJsonObject(own) && isJsonObject(value) ? mergeOverrides(own, value) : value;
  }
  return merged;
}

function findArchitecture(config: Fields): string {
  const named = config.strings('architectures') ?? [];
  const known = named.find((name) => Object.hasOwn(families, name));
  if (known !== undefined) return known;
  const modelType = config.string('model_type', '');
  const byType = configuredArchitectures.find((name) => families[name]!.modelType === modelType);
  if (named.length === 0 && byType !== undefined) return byType;
  const found = named.length > 0 ? named.join(', ') : modelType || 'none named';
  throw new TenonError(
    'unsupported.architecture',
    `${config.source}: architecture ${found} is not supported; supported: ${configuredArchitectures.join(', ')}, and those of installed packages (docs/extensions.md)`,
    { param: 'architectures' },
  );
}

function refuseQuantization(config: Fields): void {
  const name = config.has('quantization_config') ? 'quantization_config' : 'compression_config';
  const quantization = config.object(name);
  if (quantization === undefined) return;
  const method = String(quantization['quant_method'] ?? 'of an unnamed method');
  throw new TenonError(
    'unsupported.quantization',
    `${config.source}: ${name} ${method} is not supported; supported: unquantized safetensors, or a GGUF file of the model`,
    { param: name },
  );
}

function refuseForeignFeatures(config: Fields): void {
  for (const [name, off] of Object.entries(foreignFeatures)) {
    if (config.has(name) && config.raw[name] !== off)
      config.unsupported(name, `${JSON.stringify(off)} or absent`);
  }
}

function parseHeads(
  config: Fields,
  family: Family,
): Pick<ModelConfig, 'numHeads' | 'numKvHeads' | 'headDim'> {
  const hiddenSize = config.int('hidden_size', sizes.hidden);
  const numHeads = config.int('num_attention_heads', sizes.heads);
  const numKvHeads = config.int(
    'num_key_value_heads',
    sizes.heads,
    config.raw['num_key_value_heads'] === null ? numHeads : (family.numKvHeads ?? numHeads),
  );
  if (numHeads % numKvHeads !== 0) {
    config.invalid('num_key_value_heads', `a divisor of num_attention_heads ${numHeads}`);
  }
  if (!config.has('head_dim') && family.headDim === undefined && hiddenSize % numHeads !== 0) {
    config.invalid('hidden_size', `a multiple of num_attention_heads ${numHeads}, or head_dim to be given`);
  }
  const headDim = config.int('head_dim', sizes.headDim, family.headDim ?? hiddenSize / numHeads);
  if (headDim < 2 || headDim % 2 !== 0) {
    config.invalid(config.has('head_dim') ? 'head_dim' : 'hidden_size', 'head_dim to be even and at least 2');
  }
  return { numHeads, numKvHeads, headDim };
}

function parseActivation(config: Fields): Activation {
  switch (config.string('hidden_act', 'silu')) {
    case 'silu':
    case 'swish':
      return 'silu';
    case 'gelu':
    case 'gelu_python':
      return 'gelu';
    case 'gelu_new':
    case 'gelu_fast':
    case 'gelu_pytorch_tanh':
    case 'gelu_python_tanh':
      return 'gelu_tanh';
    default:
      return config.unsupported('hidden_act', 'silu, gelu, gelu_new, gelu_pytorch_tanh');
  }
}

/** One type per layer; empty where the config names none. */
function parseLayerTypes(config: Fields, numLayers: number): readonly string[] {
  const types = config.strings('layer_types') ?? [];
  if (types.length > 0 && types.length !== numLayers) {
    config.invalid('layer_types', `${numLayers} entries, as num_hidden_layers says, not ${types.length}`);
  }
  const foreign = types.find((type) => type !== 'full_attention' && type !== 'sliding_attention');
  if (foreign !== undefined) config.unsupported('layer_types', 'full_attention, sliding_attention');
  return types;
}

/** [numLayers] tokens; 0: full attention. */
function slidingWindows(
  config: Fields,
  family: Family,
  numLayers: number,
  layerTypes: readonly string[],
): readonly number[] {
  const window = family.window(config);
  if (window === 0 && layerTypes.includes('sliding_attention')) {
    config.invalid('sliding_window', 'a window in tokens, since layer_types has sliding_attention');
  }
  const slides = (layer: number) =>
    layerTypes.length > 0 ? layerTypes[layer] === 'sliding_attention' : family.slides(config, layer);
  return Array.from({ length: numLayers }, (_, layer) => (window > 0 && slides(layer) ? window : 0));
}

function parseDtype(config: Fields, names: readonly string[] = ['dtype', 'torch_dtype']): Dtype | undefined {
  const name = names.find((field) => config.has(field));
  if (name === undefined) return undefined;
  const dtype = config.string(name).replace(/^torch\./, '');
  if (dtype === 'bfloat16') return 'bf16';
  if (dtype === 'float16' || dtype === 'half') return 'f16';
  if (dtype === 'float32' || dtype === 'float') return 'f32';
  if (dtype === 'auto') return undefined;
  throw new TenonError(
    'unsupported.dtype',
    `${config.source}: ${name} ${dtype} is not supported; supported: bfloat16, float16, float32`,
    { param: name },
  );
}
