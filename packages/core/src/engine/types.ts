/** What the engine takes and gives. Server, CLI and library are written against these. */
import type { TenonError } from '../errors.js';
import type { SamplingParams } from '../sampling/sampling-params.js';
import type { Tokenizer } from '../tokenizer/types.js';

export type Prompt = { readonly text: string } | { readonly tokenIds: readonly number[] };

export interface GenerateRequest {
  readonly requestId: string;
  readonly prompt: Prompt;
  /** Complete: made by `resolveSamplingParams`. */
  readonly params: SamplingParams;
  /** Whether the tokenizer adds its special tokens (BOS) to a text prompt. */
  readonly addSpecialTokens?: boolean;
  /** Lower runs first; needs the priority policy. */
  readonly priority?: number;
  /** Requests share cached blocks only with others of the same salt. */
  readonly cacheSalt?: string;
  readonly signal?: AbortSignal;
}

/**
 * stop: an end or stop token, or a stop string; length: maxTokens or maxModelLen; repetition: repetitionDetection found one;
 * abort: the client went away.
 */
export type FinishReason = 'stop' | 'length' | 'repetition' | 'abort';

/** One alternative of a position, or the token itself (always the first entry of its list). */
export interface Logprob {
  readonly tokenId: number;
  readonly logprob: number;
  /** 1 = most likely. */
  readonly rank: number;
}

export interface CompletionOutput {
  readonly index: number;
  /** New or all text, as `outputKind` says; empty without a tokenizer. */
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** Per token of `tokenIds`: the sampled token, then the top ones in descending order. */
  readonly logprobs: readonly (readonly Logprob[])[] | undefined;
  readonly finishReason: FinishReason | undefined;
  /** The stop string or stop token id that ended it, or `repetition_detected`; undefined for end-of-sequence. */
  readonly stopReason: string | number | undefined;
}

export interface RequestMetrics {
  /** Milliseconds of one monotonic clock; 0 where it has not happened. */
  readonly arrivalMs: number;
  readonly scheduledMs: number;
  readonly firstTokenMs: number;
  readonly lastTokenMs: number;
}

export interface RequestOutput {
  readonly requestId: string;
  readonly promptTokenIds: readonly number[];
  /** Per prompt token, undefined for the first; only where asked for, in the first output. */
  readonly promptLogprobs: readonly (readonly Logprob[] | undefined)[] | undefined;
  /** Sequences with something new (delta) or all of them. */
  readonly outputs: readonly CompletionOutput[];
  readonly finished: boolean;
  readonly numCachedTokens: number;
  readonly metrics: RequestMetrics;
}

export interface EngineInfo {
  readonly modelName: string;
  readonly modelPath: string;
  readonly architecture: string;
  readonly dtype: string;
  readonly device: string;
  readonly backend: {
    readonly id: string;
    readonly version: string;
    readonly runtime: Readonly<Record<string, string>>;
  };
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxLogprobs: number;
  readonly enablePrefixCaching: boolean;
  /** How the KV cache's size was asked for: a share of the memory, or in its stead bytes or blocks. */
  readonly gpuMemoryUtilization: number;
  readonly kvCacheMemoryBytes?: number;
  readonly numGpuBlocksOverride?: number;
  readonly weightsBytes: number;
  readonly kvBytes: number;
  readonly priorityScheduling: boolean;
  /** Logits processors, and the extra arguments that each reads. */
  readonly logitsProcessors: readonly LoadedLogitsProcessor[];
}

export interface LoadedLogitsProcessor {
  readonly name: string;
  readonly args: readonly string[];
}

/** Counters since the start (num*Total) and gauges now, for /metrics and for tests. */
export interface EngineStats {
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly numFreeBlocks: number;
  readonly numUsedBlocks: number;
  readonly numBlocks: number;
  /** Share of blocks held by running requests, 0…1. */
  readonly kvCacheUsage: number;
  readonly numPreemptionsTotal: number;
  /** Sequences that their clients ended while they were preempted. */
  readonly numPreemptedEndsTotal: number;
  readonly prefixCacheQueriesTotal: number;
  readonly prefixCacheHitsTotal: number;
  readonly numPromptTokensTotal: number;
  readonly numGenerationTokensTotal: number;
  readonly numStepsTotal: number;
  readonly numStepsInFlight: number;
  /** Times that the engine came back after it had lost its device. */
  readonly numRestartsTotal: number;
}

/** A request that has ended, for histograms and logs. */
export interface FinishedRequest {
  readonly requestId: string;
  readonly numPromptTokens: number;
  readonly numCachedTokens: number;
  readonly numGenerationTokens: number;
  readonly finishReason: FinishReason | 'error';
  readonly params: SamplingParams;
  readonly metrics: RequestMetrics;
  readonly finishedMs: number;
}

export interface StepObservation {
  readonly numTokens: number;
  readonly numSeqs: number;
  /** Microseconds that the device took, and those before in which it waited for this step, although there was work. */
  readonly computeMicros: number;
  readonly idleMicros: number;
  /** Milliseconds between a sequence's tokens, one entry per token sent out that was not its first. */
  readonly interTokenMs: readonly number[];
}

export interface Health {
  readonly ok: boolean;
  readonly reason?: string;
  /** The device is lost, and the engine takes requests for when it is back. */
  readonly isRestarting?: boolean;
}

export interface Engine {
  readonly info: EngineInfo;
  /** Undefined with --skip-tokenizer-init. */
  readonly tokenizer: Tokenizer | undefined;
  /** Defaults from the model's generation_config.json, under SamplingParams' names. */
  readonly defaultSamplingParams: Partial<SamplingParams>;
  /**
   * Ends with one `finished` output, or throws a TenonError (bad request at once, engine failures as they come).
   * Leaving the loop, or the request's signal, aborts the request and frees its blocks.
   */
  generate(request: GenerateRequest): AsyncIterable<RequestOutput>;
  /** The latest snapshot, at most one step old. */
  stats(): EngineStats;
  onRequestFinished(listener: (request: FinishedRequest) => void): void;
  onStep(listener: (step: StepObservation) => void): void;
  /** Called once all requests have failed, when no more can be taken; at once if that has happened already. */
  onDeath(listener: (error: TenonError) => void): void;
  health(): Health;
  resetPrefixCache(): Promise<void>;
  /** Refuses new requests, lets running ones finish for `timeoutMs`, fails the rest, frees everything. Idempotent. */
  close(options?: { readonly timeoutMs?: number }): Promise<void>;
}
