/** Tiny checkpoints of every family that core runs, with random weights: made where they are needed, from the seed. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ModelConfig } from '../models/model-config.js';
import { recordModel } from '../models/registry.js';
import type { Checkpoint } from '../weights/checkpoint.js';
import { parseModelConfig } from '../weights/config.js';
import { openCheckpoint } from '../weights/open-checkpoint.js';
import type { Kit } from './kit.js';
import { Random } from './random.js';
import { WeightFile } from './weight-file.js';

export interface Family {
  readonly name: string;
  /** As in config.json. */
  readonly raw: Readonly<Record<string, unknown>>;
  readonly config: ModelConfig;
}

const base = {
  vocab_size: 96,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  hidden_act: 'silu',
  tie_word_embeddings: false,
  torch_dtype: 'float32',
  bos_token_id: 1,
  eos_token_id: 2,
};

function family(name: string, architecture: string, fields: Readonly<Record<string, unknown>> = {}): Family {
  const raw = { architectures: [architecture], ...base, ...fields };
  return { name, raw, config: parseModelConfig(raw, { source: `the conformance kit's ${name}` }) };
}

const llama = 'LlamaForCausalLM';

export const families: readonly Family[] = [
  family('llama', llama),
  family('llama-tied', llama, { tie_word_embeddings: true, num_key_value_heads: 1 }),
  family('llama-biases', llama, { attention_bias: true, mlp_bias: true, num_key_value_heads: 4 }),
  family('llama-rope3', llama, {
    rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 },
  }), // prettier-ignore
  family('llama-linear', llama, { rope_scaling: { rope_type: 'linear', factor: 2 } }),
  family('llama-yarn', llama, {
    rope_scaling: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32 },
  }),
  family('llama-dynamic', llama, {
    rope_scaling: { rope_type: 'dynamic', factor: 2 },
    max_position_embeddings: 32,
  }),
  family('mistral', 'MistralForCausalLM', { sliding_window: 19 }),
  family('qwen2', 'Qwen2ForCausalLM', { num_attention_heads: 6, head_dim: 8 }),
  family('qwen3', 'Qwen3ForCausalLM', { head_dim: 32, hidden_act: 'gelu_pytorch_tanh' }),
];

export const familyOf = (name: string): Family => families.find((each) => each.name === name)!;

/** The family's checkpoint, in a folder as Hugging Face lays it out. `fields` are laid over its config. */
export async function writeModel(kit: Kit, { name, raw }: Family, fields: object = {}): Promise<Checkpoint> {
  const folder = kit.newFolder(name);
  const rawConfig = { ...raw, ...fields };
  const config = parseModelConfig(rawConfig, { source: folder });
  const random = new Random(kit.options.seed, name);
  const file = new WeightFile();
  for (const { parts, shape, data } of recordModel(config, 'f32').weights)
    if (data === undefined) file.add(parts[0]!, shape, randomWeight(random, shape));
  file.write(join(folder, 'model.safetensors'));
  writeFileSync(join(folder, 'config.json'), JSON.stringify(rawConfig));
  return openCheckpoint(folder, { tokenizer: false });
}

/** Matrices keep the size of what they multiply, roughly; vectors are near 1. */
function randomWeight(random: Random, shape: readonly number[]): Float32Array {
  const size = shape.reduce((product, dim) => product * dim, 1);
  if (shape.length === 1) return random.normals(size, 0.3).map((value) => value + 1);
  return random.normals(size, 1.5 / Math.sqrt(shape[1]!));
}
