/** The architectures that Tenon runs: one row each, keyed as in config.json. */
import type { Dtype } from '../backend/index.js';
import { TenonError } from '../errors.js';
import { GraphBuilder } from '../program/graph-builder.js';
import type { Program } from '../program/program.js';
import { llama } from './llama.js';
import { mistral } from './mistral.js';
import type { ModelConfig } from './model-config.js';
import type { ModelFunction } from './model-function.js';
import { qwen2 } from './qwen2.js';
import { qwen3 } from './qwen3.js';

export const models: Readonly<Record<string, ModelFunction>> = {
  LlamaForCausalLM: llama,
  MistralForCausalLM: mistral,
  Qwen2ForCausalLM: qwen2,
  Qwen3ForCausalLM: qwen3,
};

export const supportedArchitectures: readonly string[] = Object.keys(models);

/** Architectures that are known and not there yet; any other name is more likely a mistake. */
const knownArchitectures: readonly string[] = [
  'BertModel', 'DeepseekV2ForCausalLM', 'DeepseekV3ForCausalLM', 'Gemma2ForCausalLM', 'Gemma3ForCausalLM',
  'Gemma3ForConditionalGeneration', 'GemmaForCausalLM', 'GPT2LMHeadModel', 'GPTNeoXForCausalLM', 'GptOssForCausalLM',
  'GraniteForCausalLM', 'LlavaForConditionalGeneration', 'Mistral3ForConditionalGeneration', 'MixtralForCausalLM',
  'OPTForCausalLM', 'Olmo2ForCausalLM', 'Phi3ForCausalLM', 'Qwen2_5_VLForConditionalGeneration', 'Qwen2MoeForCausalLM',
  'Qwen3ForSequenceClassification', 'Qwen3MoeForCausalLM', 'XLMRobertaModel',
]; // prettier-ignore

/** The architecture's row. Throws unsupported.architecture with the list of those there are. */
export function modelFunction(architecture: string): ModelFunction {
  const model = Object.hasOwn(models, architecture) ? models[architecture] : undefined;
  if (model !== undefined) return model;
  const known = knownArchitectures.includes(architecture) ? 'is not supported yet' : 'is unknown';
  const message = `the architecture ${architecture} ${known}; supported are ${supportedArchitectures.join(', ')}`;
  throw new TenonError('unsupported.architecture', message);
}

/** Records the model with matrices, activations and cache in `dtype`. */
export type RecordModel = (config: ModelConfig, dtype: Dtype) => Program;

export const recordModel: RecordModel = (config, dtype) =>
  recordWith(modelFunction(config.architecture), config, dtype);

export function recordWith(record: ModelFunction, config: ModelConfig, dtype: Dtype): Program {
  const g = new GraphBuilder(dtype);
  record(g, config);
  return g.finish();
}
