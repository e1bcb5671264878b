/** What the engine's front end and its core tell each other. All of it is plain data that can cross threads. */
import type { TenonError } from '../errors.js';
import type { SamplerRow } from '../sampling/sampler-row.js';

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
}

export type ToCore =
  | { readonly type: 'add'; readonly request: CoreRequest }
  /** The front end has no use for these sequences any more: aborted, or ended by a stop string. */
  | { readonly type: 'end'; readonly sequenceIds: readonly number[] }
  | { readonly type: 'reset-prefix-cache'; readonly ticket: number }
  /** The front end has read so many messages of outputs. */
  | { readonly type: 'read'; readonly count: number };

export type FromCore =
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
