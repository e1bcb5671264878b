/** Rotary settings of config.json: `rope_theta` + `rope_scaling`, or transformers 5's `rope_parameters`, flat or per layer type. */
import { isDeepStrictEqual } from 'node:util';
import type { RopeScaling } from '../models/model-config.js';
import { type Fields, isJsonObject, type JsonObject } from './fields.js';

export interface RopeConfig {
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  readonly rotaryDim: number;
}

const positive = { min: 1e-6, max: 1e12 };
const positions = { min: 1, max: 2 ** 31 - 1 };
const supportedTypes = 'default, linear, dynamic, llama3, yarn';

export function parseRope(
  config: Fields,
  model: {
    readonly headDim: number;
    readonly maxPositionEmbeddings: number;
    readonly layerTypes: readonly string[];
  },
): RopeConfig {
  const rope = ropeFields(config, model.layerTypes);
  const fraction = { min: 0, max: 1 };
  const factor =
    rope.optionalNumber('partial_rotary_factor', fraction) ??
    config.optionalNumber('partial_rotary_factor', fraction) ??
    config.number('rotary_pct', fraction, 1);
  // The small addend: 80 / 96 * 96 must give 80 whichever way it rounds.
  const rotaryDim = Math.floor(model.headDim * factor + 1e-6);
  if (rotaryDim < 2 || rotaryDim % 2 !== 0) {
    config.invalid(
      'partial_rotary_factor',
      `a share of head_dim ${model.headDim} that is even and at least 2`,
    );
  }
  return {
    ropeTheta: rope.optionalNumber('rope_theta', positive) ?? config.number('rope_theta', positive, 10_000),
    ropeScaling: parseScaling(rope, config, model.maxPositionEmbeddings),
    rotaryDim,
  };
}

/** The one object that holds the rotary settings. `rope_scaling` wins where both spellings are present. */
function ropeFields(config: Fields, layerTypes: readonly string[]): Fields {
  const name = config.object('rope_scaling') ? 'rope_scaling' : 'rope_parameters';
  const own = { ...config.object('rope_parameters'), ...config.object('rope_scaling') };
  const flat = Object.entries(own).some(
    ([key, value]) => isLayerType(key) && (value === null || isJsonObject(value)),
  )
    ? sharedByLayers(config, own, layerTypes)
    : own;
  return config.nested(name, flat);
}

const isLayerType = (key: string) => key.endsWith('_attention');

/** Settings per layer type are accepted where the layers that the model has agree. */
function sharedByLayers(config: Fields, own: JsonObject, layerTypes: readonly string[]): JsonObject {
  const named = Object.keys(own).filter(isLayerType);
  const used = layerTypes.length > 0 ? [...new Set(layerTypes)] : named;
  const [first, ...others] = used.map((type) => own[type]);
  if (!isJsonObject(first) || others.some((other) => !isDeepStrictEqual(other, first))) {
    config.unsupported('rope_parameters', 'the same rotary settings for all layers');
  }
  return first;
}

function parseScaling(rope: Fields, config: Fields, maxPositionEmbeddings: number): RopeScaling {
  const typeField = rope.has('rope_type') ? 'rope_type' : 'type';
  const type = rope.string(typeField, 'default');
  const originalMaxPosition = () =>
    config.optionalInt('original_max_position_embeddings', positions) ??
    rope.int('original_max_position_embeddings', positions, maxPositionEmbeddings);
  if (rope.has('alpha') || rope.has('mrope_section') || rope.has('llama_4_scaling_beta')) {
    rope.unsupported(typeField, `${supportedTypes}, without alpha, mrope_section, llama_4_scaling_beta`);
  }
  switch (type) {
    case 'default':
      return { type };
    case 'linear':
      return { type, factor: rope.number('factor', positive) };
    case 'dynamic':
      // Hugging Face takes max_position_embeddings as the original length here.
      return { type, factor: rope.number('factor', positive), originalMaxPosition: maxPositionEmbeddings };
    case 'llama3':
      return parseLlama3(rope, originalMaxPosition());
    case 'yarn':
      return parseYarn(rope, originalMaxPosition(), maxPositionEmbeddings);
    default:
      return rope.unsupported(typeField, supportedTypes);
  }
}

function parseLlama3(rope: Fields, originalMaxPosition: number): RopeScaling {
  const lowFreqFactor = rope.number('low_freq_factor', positive);
  const highFreqFactor = rope.number('high_freq_factor', positive);
  if (highFreqFactor <= lowFreqFactor) {
    rope.invalid('high_freq_factor', `more than low_freq_factor ${lowFreqFactor}`);
  }
  return {
    type: 'llama3',
    factor: rope.number('factor', positive),
    lowFreqFactor,
    highFreqFactor,
    originalMaxPosition,
  };
}

function parseYarn(rope: Fields, originalMaxPosition: number, maxPositionEmbeddings: number): RopeScaling {
  const atLeastZero = { min: 0, max: 1e12 };
  return {
    type: 'yarn',
    factor: rope.number('factor', positive, maxPositionEmbeddings / originalMaxPosition),
    originalMaxPosition,
    // As in Hugging Face, 0 means the default for beta_fast, beta_slow, mscale and mscale_all_dim.
    betaFast: rope.number('beta_fast', atLeastZero, 32) || 32,
    betaSlow: rope.number('beta_slow', atLeastZero, 1) || 1,
    attentionFactor: rope.optionalNumber('attention_factor', atLeastZero),
    mscale: rope.optionalNumber('mscale', atLeastZero) || undefined,
    mscaleAllDim: rope.optionalNumber('mscale_all_dim', atLeastZero) || undefined,
    truncate: rope.boolean('truncate', true),
  };
}
