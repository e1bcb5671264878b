/** config.json and generation_config.json, edited or raw; what parses is planned too. */
import { parseModelConfig } from '../../packages/core/src/weights/config.js';
import {
  parseGenerationDefaults,
  parseGenerationEosTokenIds,
} from '../../packages/core/src/weights/generation-config.js';
import { parseJsonObject } from '../../packages/core/src/weights/json-file.js';
import { ByteSource } from './byte-source.js';
import { editedJson } from './edited-json.js';
import { requireFinite, runCase } from './oracle.js';

const model = {
  hidden_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  intermediate_size: 128,
  vocab_size: 100,
  hidden_act: 'silu',
  rms_norm_eps: 1e-6,
  max_position_embeddings: 2048,
  tie_word_embeddings: true,
  attention_bias: false,
  mlp_bias: false,
  use_sliding_window: true,
  sliding_window: 512,
  max_window_layers: 1,
  bos_token_id: 1,
  eos_token_id: [2, 3],
  torch_dtype: 'bfloat16',
};
const configs: readonly object[] = [
  { architectures: ['LlamaForCausalLM'], ...model, rope_theta: 10_000, rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 1024 } },
  { architectures: ['MistralForCausalLM'], ...model, rope_scaling: { type: 'yarn', factor: 4, beta_fast: 32, beta_slow: 1, mscale: 1 } },
  { architectures: ['Qwen2ForCausalLM'], ...model, rope_parameters: { rope_type: 'dynamic', factor: 2, rope_theta: 1e6 } },
  { model_type: 'qwen3', ...model, layer_types: ['full_attention', 'sliding_attention'], rope_parameters: { full_attention: { rope_type: 'linear', factor: 2 }, sliding_attention: { rope_type: 'linear', factor: 2 } } },
]; // prettier-ignore
const generation = {
  temperature: 0.6,
  top_p: 0.9,
  top_k: 20,
  min_p: 0.1,
  repetition_penalty: 1.1,
  max_new_tokens: 10,
  eos_token_id: [1],
};

export function fuzz(data: Buffer): void {
  const source = new ByteSource(data);
  const kind = source.below(6);
  const base = configs[kind] ?? generation;
  const text =
    source.below(4) === 0 ? Buffer.from(source.rest()).toString() : JSON.stringify(editedJson(base, source));
  if (text === undefined) return;
  const raw = runCase(() => parseJsonObject(text, 'config.json', 'config.model-invalid'));
  if (raw === undefined) return;
  if (base === generation) {
    requireFinite(runCase(() => parseGenerationDefaults(raw, 'generation_config.json')));
    requireFinite(runCase(() => parseGenerationEosTokenIds(raw, 'generation_config.json')));
  } else requireFinite(runCase(() => parseModelConfig(raw, { source: 'config.json' })));
}
