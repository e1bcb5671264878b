/** A model on disk, whatever its format: configuration, tensors, tokenizer files. Made by `openCheckpoint`. */
import type { TensorLocation, WeightSource } from '../backend/index.js';
import type { ModelConfig } from '../models/model-config.js';
import type { ModelOrigin } from '../models/model-origin.js';
import type { SamplingParams } from '../sampling/sampling-params.js';

export interface Checkpoint extends WeightSource {
  readonly format: 'safetensors' | 'gguf';
  /** The folder, or the GGUF file. */
  readonly path: string;
  readonly config: ModelConfig;
  /** Where the model's code comes from, if not from Tenon itself. */
  readonly modelOrigin?: ModelOrigin | undefined;
  /** generation_config.json, as SamplingParams. */
  readonly generationDefaults: Partial<SamplingParams>;
  /** Keyed by Hugging Face names (`model.layers.0.self_attn.q_proj.weight`), also for GGUF. */
  readonly locations: ReadonlyMap<string, TensorLocation>;
  /** Tensors of types that no backend loads, and so are in no location: name to type (`I64`, `F8_E4M3`). */
  readonly foreignDtypes: ReadonlyMap<string, string>;
  readonly tokenizerSource: TokenizerSource;
  /** Throws `config.weights-invalid` where a weight file has another size or time than when it was opened. */
  verifyUnchanged(): Promise<void>;
}

/** Plain data, so that it can be sent to a worker thread. */
export type TokenizerSource =
  | {
      readonly kind: 'huggingface';
      /** Parsed tokenizer.json and tokenizer_config.json (chat_template.jinja merged into chatTemplate). */
      readonly tokenizerJson: object;
      readonly tokenizerConfig: Readonly<Record<string, unknown>>;
      readonly chatTemplate: string | undefined;
    }
  | { readonly kind: 'gguf'; readonly metadata: Readonly<Record<string, unknown>> }
  /** No tokenizer files: only token-id prompts can be served. */
  | { readonly kind: 'none' };
