/** What the engine's front end and its core tell each other. All of it is plain data that can cross threads. */
import type { TenonError } from '../errors.js';
import type { ExtraArgs } from '../extensions/logits-processor.js';
import type { SamplerRow } from '../sampling/sampler-row.js';
import type { VocabularyData } from '../tokenizer/vocabulary-data.js';

export type ErrorData = ReturnType<TenonError['toJSON']>;

/** A request as the core knows it: `seeds.length` sequences with consecutive ids that share their prompt. */
export interface CoreRequest {
  readonly firstSequenceId: number;
  readonly promptTokenIds: Int32Array;
  /** Unsigned 64 bits per sequence. */
  readonly seed: bigint;
  readonly n: number;
  readonly sampler: SamplerRow;
  /** Infinity: as many as fit. */
  readonly maxTokens: number;
  /** Tokens that end a sequence. */
  readonly stopTokenIds: readonly number[];
  readonly priority: number;
  readonly cacheSalt: string | undefined;
  /** For logits processors. */
  readonly extraArgs: ExtraArgs;
}

export type ToCore =
  | { readonly type: 'add'; readonly request: CoreRequest }
  /** The front end has no use for these sequences any more: aborted, or ended by a stop string. */
  | { readonly type: 'end'; readonly sequenceIds: readonly number[] }
  | { readonly type: 'reset-prefix-cache'; readonly ticket: number }
  /** For logits processors, before any request. */
  | { readonly type: 'vocabulary'; readonly vocabulary: VocabularyData }
  /** The front end has read so many messages of outputs. */
  | { readonly type: 'read'; readonly count: number };

export type FromCore =
  /** The next step is the first that these sequences are in. Only where `reportsBegun`, and sent before that step runs. */
  | { readonly type: 'begun'; readonly sequenceIds: readonly number[] }
  /** Records of `OutputEncoder`. */
  | { readonly type: 'outputs'; readonly records: Float64Array }
  /** `fatal`: the core takes no more requests. */
  | {
      readonly type: 'failed';
      readonly error: ErrorData;
      readonly sequenceIds: readonly number[];
      readonly fatal: boolean;
    }
  | { readonly type: 'prefix-cache-reset'; readonly ticket: number };
