/** A language model in a GGUF file: its metadata as a ModelConfig, its tensors under Hugging Face names. */
import type { Dtype, TensorLocation } from '../backend/index.js';
import { TenonError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import { mergeOverrides, parseModelConfig } from './config.js';
import { Fields, type JsonObject } from './fields.js';
import type { GgufFile } from './gguf.js';

/** Hugging Face's class for each `general.architecture`. llama.cpp stores Mistral models as llama. */
const architectures: Readonly<Record<string, string>> = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
};

/** config.json's field for each metadata key (after `<architecture>.`), for building the one and for naming the other. */
const configKeys: Readonly<Record<string, string>> = {
  hidden_size: 'embedding_length',
  num_hidden_layers: 'block_count',
  num_attention_heads: 'attention.head_count',
  num_key_value_heads: 'attention.head_count_kv',
  head_dim: 'attention.key_length',
  intermediate_size: 'feed_forward_length',
  rms_norm_eps: 'attention.layer_norm_rms_epsilon',
  max_position_embeddings: 'context_length',
  sliding_window: 'attention.sliding_window',
  num_experts: 'expert_count',
  logit_scale: 'logit_scale',
  embedding_multiplier: 'embedding_scale',
  residual_multiplier: 'residual_scale',
  attn_logit_softcapping: 'attn_logit_softcapping',
  final_logit_softcapping: 'final_logit_softcapping',
};
const ropeKeys: Readonly<Record<string, string>> = {
  rope_theta: 'rope.freq_base',
  rope_type: 'rope.scaling.type',
  factor: 'rope.scaling.factor',
  original_max_position_embeddings: 'rope.scaling.original_context_length',
  beta_fast: 'rope.scaling.yarn_beta_fast',
  beta_slow: 'rope.scaling.yarn_beta_slow',
};

export interface GgufModel {
  readonly config: ModelConfig;
  readonly locations: ReadonlyMap<string, TensorLocation>;
  /** The frequencies' divisors, which are part of the configuration and so no weight: still to be read. */
  readonly ropeFactors: TensorLocation | undefined;
}

/** @throws `unsupported.*` and `config.model-invalid` as parseModelConfig does, naming the metadata keys. */
export function parseGgufModel(gguf: GgufFile, overrides: JsonObject): GgufModel {
  const architecture = findArchitecture(gguf);
  refuseSplit(gguf);
  const raw = mergeOverrides(toConfigJson(gguf, architecture), overrides);
  const keyOf = (field: string) =>
    field.startsWith('rope_parameters.')
      ? ropeKeys[field.slice('rope_parameters.'.length)]
      : configKeys[field];
  const parsed = parseModelConfig(raw, {
    source: gguf.file,
    label: (field) => (keyOf(field) === undefined ? field : `${architecture}.${keyOf(field)}`),
    tensorDtype: tensorDtype(gguf),
  });
  const config: ModelConfig = {
    ...parsed,
    // llama.cpp permutes the q and k rows of this architecture when it converts.
    ropeInterleaved: architecture === 'llama',
    qkvBias: gguf.tensors.has('blk.0.attn_q.bias'),
    attentionOutputBias: gguf.tensors.has('blk.0.attn_output.bias'),
    mlpBias: gguf.tensors.has('blk.0.ffn_down.bias'),
  };
  return { config, locations: renameTensors(gguf), ropeFactors: findRopeFactors(gguf, config) };
}

/** The sampling defaults, as generation_config.json would have them. */
export function ggufGenerationConfig(gguf: GgufFile): JsonObject {
  const sampling = (key: string) => gguf.metadata[`general.sampling.${key}`];
  return {
    temperature: sampling('temp'),
    top_k: sampling('top_k'),
    top_p: sampling('top_p'),
    min_p: sampling('min_p'),
    repetition_penalty: sampling('penalty_repeat'),
  };
}

function findArchitecture(gguf: GgufFile): string {
  const architecture = new Fields(gguf.metadata, gguf.file).string('general.architecture');
  if (Object.hasOwn(architectures, architecture)) return architecture;
  throw new TenonError(
    'unsupported.architecture',
    `${gguf.file}: architecture ${architecture} is not supported; supported in GGUF: ${Object.keys(architectures).join(', ')}`,
  );
}

function refuseSplit(gguf: GgufFile): void {
  const metadata = new Fields(gguf.metadata, gguf.file);
  if (metadata.int('split.count', { min: 0, max: 65_535 }, 0) > 1) {
    metadata.unsupported('split.count', 'one file (llama-gguf-split --merge joins the parts)');
  }
}

/** The metadata in config.json's spelling. Values are checked later, by parseModelConfig. */
function toConfigJson(gguf: GgufFile, architecture: string): JsonObject {
  const { metadata, tensors, file } = gguf;
  const key = (name: string) =>
    sameForAllLayers(metadata[`${architecture}.${name}`], `${architecture}.${name}`, file);
  const named = (keys: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(keys).map(([field, name]) => [field, key(name)]));
  const config = named(configKeys);
  const hiddenPerHead = Number(config['hidden_size']) / Number(config['num_attention_heads']);
  const headDim = config['head_dim'] ?? (Number.isInteger(hiddenPerHead) ? hiddenPerHead : undefined);
  refuseUnequalHeads(headDim, key('attention.value_length'), file);
  return {
    ...config,
    architectures: [isMistral(architecture, config) ? 'MistralForCausalLM' : architectures[architecture]],
    head_dim: headDim,
    num_key_value_heads: config['num_key_value_heads'] ?? config['num_attention_heads'],
    vocab_size: tensors.get('token_embd.weight')?.shape[0] ?? key('vocab_size'),
    tie_word_embeddings: !tensors.has('output.weight'),
    rope_parameters: ropeParameters(named(ropeKeys), key, headDim),
    bos_token_id: metadata['tokenizer.ggml.bos_token_id'] ?? null,
    eos_token_id: endTokens(metadata),
  };
}

const isMistral = (architecture: string, config: JsonObject) =>
  architecture === 'llama' && Number(config['sliding_window'] ?? 0) > 0;

function ropeParameters(named: JsonObject, key: (name: string) => unknown, headDim: unknown): JsonObject {
  const type = named['rope_type'] ?? (key('rope.scale_linear') === undefined ? 'none' : 'linear');
  const rotaryDim = key('rope.dimension_count') ?? headDim;
  const factor = Number(named['factor'] ?? 1);
  const attentionFactor = Number(key('rope.scaling.attn_factor') ?? 1);
  return {
    ...named,
    rope_type: type === 'none' ? 'default' : type,
    factor: named['factor'] ?? key('rope.scale_linear'),
    partial_rotary_factor: Number(rotaryDim) / Number(headDim),
    // llama.cpp multiplies yarn's own factor by this one.
    attention_factor:
      attentionFactor === 1 ? undefined : attentionFactor * (1 + 0.1 * Math.log(Math.max(factor, 1))),
  };
}

/** Some models give one value per layer; ours have layers of one size. */
function sameForAllLayers(value: unknown, key: string, file: string): unknown {
  if (!Array.isArray(value)) return value;
  if (value.length > 0 && value.every((item) => item === value[0])) return value[0];
  throw new TenonError(
    'unsupported.model-feature',
    `${file}: ${key} differs between layers, which is not supported`,
  );
}

function refuseUnequalHeads(keyLength: unknown, valueLength: unknown, file: string): void {
  if (valueLength === undefined || keyLength === undefined || valueLength === keyLength) return;
  throw new TenonError(
    'unsupported.model-feature',
    `${file}: attention.value_length ${String(valueLength)} differs from attention.key_length ${String(keyLength)}, which is not supported`,
  );
}

/** End of sequence, of turn and of message: each ends the text. */
function endTokens(metadata: JsonObject): unknown[] {
  const ids = ['eos', 'eot', 'eom'].map((name) => metadata[`tokenizer.ggml.${name}_token_id`]);
  return [...new Set(ids.filter((id) => id !== undefined))];
}

/** What `--dtype auto` takes as the checkpoint's type: that of its matrices; quantized ones meet bf16. */
function tensorDtype(gguf: GgufFile): Dtype {
  const dtype = gguf.tensors.get('blk.0.attn_q.weight')?.dtype;
  if (dtype === 'F32') return 'f32';
  return dtype === 'F16' ? 'f16' : 'bf16';
}

const globalNames: Readonly<Record<string, string>> = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.norm',
  output: 'lm_head',
};
const layerNames: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
};
const ropeFactorsName = 'rope_freqs.weight';

function renameTensors(gguf: GgufFile): ReadonlyMap<string, TensorLocation> {
  const locations = new Map<string, TensorLocation>();
  for (const [name, location] of gguf.tensors) {
    if (name === ropeFactorsName || name.endsWith('.attn_rot_embd')) continue;
    const renamed = huggingFaceName(name);
    if (renamed === undefined) {
      throw new TenonError(
        'unsupported.model-feature',
        `${gguf.file}: tensor ${name} belongs to no supported model part`,
      );
    }
    locations.set(renamed, { ...location, name: renamed });
  }
  return locations;
}

/** `blk.0.attn_q.weight` is `model.layers.0.self_attn.q_proj.weight`; undefined for a name not in the tables. */
export function huggingFaceName(name: string): string | undefined {
  const [, layer, part, suffix] = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name) ?? [];
  if (part === undefined) return undefined;
  const names = layer === undefined ? globalNames : layerNames;
  if (!Object.hasOwn(names, part)) return undefined;
  return `${layer === undefined ? '' : `model.layers.${layer}.`}${names[part]}.${suffix}`;
}

function findRopeFactors(gguf: GgufFile, config: ModelConfig): TensorLocation | undefined {
  const location = gguf.tensors.get(ropeFactorsName);
  if (location === undefined) return undefined;
  if (config.ropeScaling.type !== 'default') {
    throw new TenonError(
      'unsupported.model-feature',
      `${gguf.file}: ${ropeFactorsName} together with rope scaling ${config.ropeScaling.type} is not supported`,
    );
  }
  const expected = config.rotaryDim / 2;
  if (location.shape.length !== 1 || location.shape[0] !== expected) {
    throw new TenonError(
      'config.weights-invalid',
      `${gguf.file}: ${ropeFactorsName} has shape [${location.shape.join(', ')}]; expected [${expected}]`,
    );
  }
  return location;
}
