/** SamplingParams from a request's fields: the request's first, then the model's defaults, then vLLM's. */
import type { Engine } from '../../engine/types.js';
import { TenonError } from '../../errors.js';
import type { ExtraArgs } from '../../extensions/logits-processor.js';
import type { RepetitionDetection } from '../../sampling/repetition.js';
import { resolveSamplingParams } from '../../sampling/resolve-sampling-params.js';
import type { SamplingParams } from '../../sampling/sampling-params.js';
import type { ChatCompletionRequest } from '../schemas/chat-completions.js';
import type { CompletionRequest } from '../schemas/completions.js';

type SharedBody = Omit<CompletionRequest, 'prompt' | 'logprobs' | 'echo'>;

const defaultCompletionTokens = 16;

export function samplingFromCompletion(body: CompletionRequest, engine: Engine): SamplingParams {
  const promptOnly = isPromptOnly(body);
  if (body.max_tokens === 0 && !promptOnly) {
    throw invalid('max_tokens', "'max_tokens' must be at least 1, not 0 (0 needs 'echo': true)");
  }
  const maxTokens = body.max_tokens ?? engine.defaultSamplingParams.maxTokens ?? defaultCompletionTokens;
  const given: Partial<SamplingParams> = {
    ...sharedSampling(body, engine),
    maxTokens: promptOnly ? 1 : maxTokens,
    logprobs: body.logprobs,
    promptLogprobs: body.prompt_logprobs ?? (body.echo === true ? body.logprobs : undefined),
    ...(promptOnly ? { minTokens: 0 } : {}),
  };
  return resolve(given, engine);
}

/** `echo` with `max_tokens` 0: the prompt and its logprobs, nothing generated is shown. */
export function isPromptOnly(body: CompletionRequest): boolean {
  return body.echo === true && body.max_tokens === 0;
}

export function samplingFromChat(body: ChatCompletionRequest, engine: Engine): SamplingParams {
  if (body.top_logprobs !== undefined && body.top_logprobs !== 0 && body.logprobs !== true) {
    throw invalid('top_logprobs', "'top_logprobs' needs 'logprobs': true");
  }
  if (body.max_tokens === 0) throw invalid('max_tokens', "'max_tokens' must be at least 1, not 0");
  const given: Partial<SamplingParams> = {
    ...sharedSampling(body, engine),
    maxTokens: body.max_completion_tokens ?? body.max_tokens,
    promptLogprobs: body.prompt_logprobs,
  };
  if (body.logprobs !== true) return resolve(given, engine);
  try {
    return resolve({ ...given, logprobs: body.top_logprobs ?? 0 }, engine);
  } catch (error) {
    if (!(error instanceof TenonError) || error.param !== 'logprobs') throw error;
    throw invalid('top_logprobs', `top_${error.message}`);
  }
}

function sharedSampling(body: SharedBody, engine: Engine): Partial<SamplingParams> {
  if (body.stream === true && body.prompt_logprobs !== undefined) {
    throw invalid('prompt_logprobs', "'prompt_logprobs' cannot be had with 'stream': true");
  }
  const stop = typeof body.stop === 'string' ? [body.stop] : body.stop;
  if (engine.tokenizer === undefined) {
    if (stop?.length) throw needsTokenizer('stop', 'use stop_token_ids');
    if (body.bad_words?.length) throw needsTokenizer('bad_words', 'use logit_bias');
  }
  return {
    n: body.n,
    minTokens: body.min_tokens,
    temperature: body.temperature,
    topP: body.top_p,
    topK: body.top_k,
    minP: body.min_p,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    repetitionPenalty: body.repetition_penalty,
    seed: body.seed,
    stop,
    stopTokenIds: body.stop_token_ids,
    includeStopStrInOutput: body.include_stop_str_in_output,
    ignoreEos: body.ignore_eos,
    logitBias: body.logit_bias,
    allowedTokenIds: body.allowed_token_ids,
    badWords: body.bad_words,
    extraArgs: body.vllm_xargs as ExtraArgs | undefined,
    repetitionDetection: repetitionDetection(body),
    skipSpecialTokens: body.skip_special_tokens,
    detokenize: engine.tokenizer !== undefined,
    outputKind: body.stream === true ? 'delta' : 'final',
  };
}

function repetitionDetection({ repetition_detection: given }: SharedBody): RepetitionDetection | undefined {
  if (given === undefined) return undefined;
  const {
    max_pattern_size: maxPatternSize,
    min_pattern_size: minPatternSize = 1,
    min_count: minCount,
  } = given;
  return { maxPatternSize, minPatternSize, minCount };
}

function resolve(given: Partial<SamplingParams>, engine: Engine): SamplingParams {
  return resolveSamplingParams(given, engine.defaultSamplingParams, {
    ...engine.info,
    spelling: 'snake_case',
  });
}

function needsTokenizer(param: string, remedy: string): TenonError {
  return new TenonError(
    'request.no-tokenizer',
    `'${param}' needs a tokenizer, and the server runs with --skip-tokenizer-init: ${remedy}`,
    { param },
  );
}

function invalid(param: string, message: string): TenonError {
  return new TenonError('request.invalid-value', message, { param });
}
