import type { ExtraArgs } from '../extensions/logits-processor.js';
import type { RepetitionDetection } from './repetition.js';

/** How a request's tokens are chosen and when it ends: vLLM's SamplingParams in camelCase, same defaults. */
export interface SamplingParams {
  /** Sequences generated for the prompt; they share its KV blocks. */
  readonly n: number;
  /** Undefined: as many as fit maxModelLen. */
  readonly maxTokens: number | undefined;
  readonly minTokens: number;
  /** 0: greedy. */
  readonly temperature: number;
  readonly topP: number;
  /** 0: all. */
  readonly topK: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  /** Undefined: a random one. Sequence i of n uses seed + i. */
  readonly seed: number | undefined;
  readonly stop: readonly string[];
  readonly stopTokenIds: readonly number[];
  readonly includeStopStrInOutput: boolean;
  readonly ignoreEos: boolean;
  readonly logitBias: Readonly<Record<number, number>>;
  readonly allowedTokenIds: readonly number[] | undefined;
  readonly badWords: readonly string[];
  /** Arguments of logits processors (`vllm_xargs` over HTTP): JSON values. */
  readonly extraArgs: ExtraArgs;
  /** Ends a sequence that repeats itself, with finish reason `repetition`. */
  readonly repetitionDetection: RepetitionDetection | undefined;
  /** Top logprobs per sampled token, besides the token's own; -1: the vocabulary; undefined: none. */
  readonly logprobs: number | undefined;
  readonly promptLogprobs: number | undefined;
  readonly skipSpecialTokens: boolean;
  /** False: token ids only, no text. */
  readonly detokenize: boolean;
  /** delta: what is new since the last output; cumulative: all so far; final: one output at the end. */
  readonly outputKind: 'delta' | 'cumulative' | 'final';
}
