/** A model's configuration, read from config.json (classic or transformers 5 spelling) or GGUF metadata, complete and checked. */
import type { Activation } from '../backend/ops.js';
import type { Dtype } from '../backend/dtype.js';

export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
  | { readonly type: 'dynamic'; readonly factor: number; readonly originalMaxPosition: number }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPosition: number;
    }
  | {
      readonly type: 'yarn';
      readonly factor: number;
      readonly originalMaxPosition: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      /** Undefined: derived from factor, mscale and mscaleAllDim as Hugging Face does. */
      readonly attentionFactor: number | undefined;
      readonly mscale: number | undefined;
      readonly mscaleAllDim: number | undefined;
      readonly truncate: boolean;
    }
  /** Per-frequency divisors, as GGUF's rope_freqs.weight holds them. */
  | { readonly type: 'factors'; readonly factors: Float32Array };

export interface ModelConfig {
  /** `LlamaForCausalLM`, … : the registry's key. */
  readonly architecture: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly activation: Activation;
  readonly rmsNormEps: number;
  readonly maxPositionEmbeddings: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  /** headDim * partial_rotary_factor. */
  readonly rotaryDim: number;
  /** True for GGUF files of llama, whose q and k rows are permuted to pair (2i, 2i + 1). */
  readonly ropeInterleaved: boolean;
  /**
   * The type that the rotary frequencies are rounded to; f32 where undefined. For models that were trained or evaluated with
   * 16-bit frequencies (`model.to(torch.bfloat16)` in PyTorch rounds them): config field `rope_frequency_dtype`, ours.
   */
  readonly ropeFrequencyDtype?: Dtype;
  readonly tieWordEmbeddings: boolean;
  /** Biases of q, k, v; of the output projection; of the feed-forward. */
  readonly qkvBias: boolean;
  readonly attentionOutputBias: boolean;
  readonly mlpBias: boolean;
  /** Window in tokens per layer; 0: full attention. */
  readonly slidingWindows: readonly number[];
  /** The checkpoint's own type. */
  readonly checkpointDtype: Dtype;
  readonly bosTokenId: number | undefined;
  /** config.json's and generation_config.json's end tokens together. */
  readonly eosTokenIds: readonly number[];
}
