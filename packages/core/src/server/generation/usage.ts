/** Token counts and timings of an answer. */
import type { RequestMetrics } from '../../engine/types.js';

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens: number };
}

export function usageOf(
  numPromptTokens: number,
  numCompletionTokens: number,
  numCachedTokens?: number,
): Usage {
  return {
    prompt_tokens: numPromptTokens,
    completion_tokens: numCompletionTokens,
    total_tokens: numPromptTokens + numCompletionTokens,
    ...(numCachedTokens === undefined ? {} : { prompt_tokens_details: { cached_tokens: numCachedTokens } }),
  };
}

export interface AnswerMetrics {
  readonly time_to_first_token_ms: number;
  readonly generation_time_ms: number;
  readonly queue_time_ms: number;
  readonly mean_itl_ms: number | null;
  readonly tokens_per_second: number | null;
}

export function answerMetrics(metrics: RequestMetrics, numCompletionTokens: number): AnswerMetrics {
  const generationMs = metrics.lastTokenMs - metrics.firstTokenMs;
  const hasIntervals = numCompletionTokens > 1 && generationMs > 0;
  return {
    time_to_first_token_ms: metrics.firstTokenMs - metrics.arrivalMs,
    generation_time_ms: generationMs,
    queue_time_ms: metrics.scheduledMs - metrics.arrivalMs,
    mean_itl_ms: hasIntervals ? generationMs / (numCompletionTokens - 1) : null,
    tokens_per_second: hasIntervals ? ((numCompletionTokens - 1) * 1000) / generationMs : null,
  };
}
