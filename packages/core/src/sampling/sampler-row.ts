import { rowMode } from '../backend/index.js';
import type { SamplingParams } from './sampling-params.js';

/** How a sequence's tokens are sampled, as the step wants it: plain data, made once per request. */
export interface SamplerRow {
  /** Bits of `rowMode`. */
  readonly mode: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  /** Halves of the 64-bit seed. */
  readonly seedLow: number;
  readonly seedHigh: number;
  /** Entries of the top list; -1: no logprobs at all. */
  readonly numLogprobs: number;
  /** The same for prompt tokens. */
  readonly numPromptLogprobs: number;
  /** Output tokens before which `suppressTokens` may not be sampled; Infinity: never. */
  readonly minTokens: number;
  readonly suppressTokens: Int32Array;
  /** Empty: all. */
  readonly allowedTokens: Int32Array;
  readonly biasTokens: Int32Array;
  /** [biasTokens.length] */
  readonly biasValues: Float32Array;
  /** [length, tokens…] per bad word. */
  readonly badWords: Int32Array;
  /** Penalties and bad words look at the tokens so far. */
  readonly needsHistory: boolean;
}

export interface SamplerRowOptions {
  /** All tokens that could end the sequence. */
  readonly suppressTokens: readonly number[];
  readonly badWords: Int32Array;
  readonly processedLogprobs: boolean;
}

/** The row of a request; its seed halves are set per sequence with `withSeed`. */
export function buildSamplerRow(params: SamplingParams, options: SamplerRowOptions): SamplerRow {
  const bias = Object.entries(params.logitBias);
  const penalized =
    params.presencePenalty !== 0 || params.frequencyPenalty !== 0 || params.repetitionPenalty !== 1;
  return {
    mode:
      rowMode.sample |
      (params.temperature === 0 ? rowMode.greedy : 0) |
      (options.processedLogprobs ? rowMode.processedLogprobs : 0),
    temperature: params.temperature,
    topK: params.topK,
    topP: params.topP,
    minP: params.minP,
    presencePenalty: params.presencePenalty,
    frequencyPenalty: params.frequencyPenalty,
    repetitionPenalty: params.repetitionPenalty,
    seedLow: 0,
    seedHigh: 0,
    numLogprobs: params.logprobs ?? -1,
    numPromptLogprobs: params.promptLogprobs ?? -1,
    minTokens: params.minTokens,
    suppressTokens: Int32Array.from(params.minTokens > 0 ? options.suppressTokens : []),
    allowedTokens: Int32Array.from(params.allowedTokenIds ?? []),
    biasTokens: Int32Array.from(bias, ([token]) => Number(token)),
    biasValues: Float32Array.from(bias, ([, value]) => value),
    badWords: options.badWords,
    needsHistory: penalized || options.badWords.length > 0,
  };
}

/** The row of sequence `index` of a request: its seed is seed + index, modulo 2^64. */
export function withSeed(row: SamplerRow, seed: bigint, index: number): SamplerRow {
  const bits = BigInt.asUintN(64, seed + BigInt(index));
  return {
    ...row,
    seedLow: Number(BigInt.asIntN(32, bits)),
    seedHigh: Number(BigInt.asIntN(32, bits >> 32n)),
  };
}
