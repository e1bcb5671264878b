/** generation_config.json: the model's own defaults for sampling, and its end tokens. */
import type { SamplingParams } from '../sampling/sampling-params.js';
import { Fields, type JsonObject } from './fields.js';

/** The fields that vLLM takes, whether or not do_sample is set; a null counts as absent. */
export function parseGenerationDefaults(raw: JsonObject, source: string): Partial<SamplingParams> {
  const config = new Fields(raw, source);
  const topK = config.optionalInt('top_k', { min: -1, max: 2 ** 31 - 1 });
  return withoutUndefined({
    temperature: config.optionalNumber('temperature', { min: 0, max: 100 }),
    topP: config.optionalNumber('top_p', { min: Number.MIN_VALUE, max: 1 }),
    topK: topK === -1 ? 0 : topK,
    minP: config.optionalNumber('min_p', { min: 0, max: 1 }),
    repetitionPenalty: config.optionalNumber('repetition_penalty', { min: 1e-6, max: 1e6 }),
    maxTokens: config.optionalInt('max_new_tokens', { min: 1, max: 2 ** 31 - 1 }),
  });
}

export function parseGenerationEosTokenIds(raw: JsonObject, source: string): readonly number[] {
  return new Fields(raw, source).ints('eos_token_id', { min: 0, max: 2 ** 31 - 1 });
}

function withoutUndefined<T extends object>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}
