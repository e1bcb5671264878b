/** The fields that completions and chat share. A field that is null counts as absent (see read-body.ts). */
import { Type } from 'typebox';

import { samplingDefaults as defaults } from '../../sampling/resolve-sampling-params.js';

export const TokenIds = Type.Array(Type.Integer({ minimum: 0 }));

export const samplingFields = {
  max_tokens: Type.Optional(
    Type.Integer({
      minimum: 0,
      description:
        'Tokens to generate at most: 16 by default for a completion, all the room there is for chat. 0 is for `echo` alone',
    }),
  ),
  temperature: Type.Optional(
    Type.Number({ minimum: 0, maximum: 2, default: defaults.temperature, description: '0: greedy' }),
  ),
  top_p: Type.Optional(
    Type.Number({
      exclusiveMinimum: 0,
      maximum: 1,
      default: defaults.topP,
      description: 'Sample from the likeliest tokens that have this probability together',
    }),
  ),
  top_k: Type.Optional(
    Type.Integer({
      minimum: -1,
      default: defaults.topK,
      description: 'Sample from this many of the likeliest tokens; 0 or -1: from all',
    }),
  ),
  min_p: Type.Optional(
    Type.Number({
      minimum: 0,
      maximum: 1,
      default: defaults.minP,
      description: 'Sample from tokens with at least this share of the likeliest one’s probability',
    }),
  ),
  presence_penalty: Type.Optional(
    Type.Number({
      minimum: -2,
      maximum: 2,
      default: defaults.presencePenalty,
      description: 'Taken from the logits of tokens that were generated',
    }),
  ),
  frequency_penalty: Type.Optional(
    Type.Number({
      minimum: -2,
      maximum: 2,
      default: defaults.frequencyPenalty,
      description: 'Taken from the logits of tokens, as often as they were generated',
    }),
  ),
  repetition_penalty: Type.Optional(
    Type.Number({
      exclusiveMinimum: 0,
      default: defaults.repetitionPenalty,
      description: 'Divides the logits (where negative: multiplies) of tokens of prompt and answer',
    }),
  ),
  n: Type.Optional(Type.Integer({ minimum: 1, default: defaults.n, description: 'Choices per prompt' })),
  seed: Type.Optional(
    Type.Integer({ description: 'The same seed gives the same answer; -1: a random one, the default' }),
  ),
  stop: Type.Optional(
    Type.Union([Type.String({ minLength: 1 }), Type.Array(Type.String({ minLength: 1 }))], {
      description: 'Up to 4 strings that end the answer; they are not in it',
    }),
  ),
  stop_token_ids: Type.Optional(
    Type.Array(Type.Integer({ minimum: 0 }), { description: 'Tokens that end the answer' }),
  ),
  include_stop_str_in_output: Type.Optional(
    Type.Boolean({
      default: defaults.includeStopStrInOutput,
      description: 'Leave the stop string, or the text of the stop token, in the answer',
    }),
  ),
  ignore_eos: Type.Optional(
    Type.Boolean({ default: defaults.ignoreEos, description: 'Go on after the model’s end token' }),
  ),
  min_tokens: Type.Optional(
    Type.Integer({
      minimum: 0,
      default: defaults.minTokens,
      description: 'Nothing ends the answer before this many tokens',
    }),
  ),
  logit_bias: Type.Optional(
    Type.Record(Type.String(), Type.Number(), {
      description: 'Token id to what is added to its logit, clamped to -100…100',
    }),
  ),
  allowed_token_ids: Type.Optional(
    Type.Array(Type.Integer({ minimum: 0 }), { minItems: 1, description: 'Generate these tokens only' }),
  ),
  bad_words: Type.Optional(
    Type.Array(Type.String({ minLength: 1 }), { description: 'Up to 128 words that are not generated' }),
  ),
  vllm_xargs: Type.Optional(
    Type.Object({}, { description: 'Arguments for logits processors (`--logits-processors`), by name' }),
  ),
  repetition_detection: Type.Optional(
    Type.Object(
      {
        max_pattern_size: Type.Integer({ minimum: 1 }),
        min_pattern_size: Type.Optional(Type.Integer({ minimum: 1 })),
        min_count: Type.Integer({ minimum: 2 }),
      },
      {
        description:
          'Ends an answer whose last `min_count` patterns of `min_pattern_size` (1) to `max_pattern_size` tokens are equal, with finish reason `repetition`',
      },
    ),
  ),
  prompt_logprobs: Type.Optional(
    Type.Integer({
      minimum: -1,
      description:
        'Log-probabilities of the prompt’s tokens and of this many alternatives each; -1: of the vocabulary. Not with `stream`',
    }),
  ),
  skip_special_tokens: Type.Optional(
    Type.Boolean({
      default: defaults.skipSpecialTokens,
      description: 'Leave special tokens out of the text',
    }),
  ),
  add_special_tokens: Type.Optional(
    Type.Boolean({
      description:
        'Let the tokenizer put its special tokens around the prompt: by default for completions, not for chat',
    }),
  ),
  truncate_prompt_tokens: Type.Optional(
    Type.Integer({ minimum: -1, description: 'Keep this many tokens of the prompt; -1: as many as fit' }),
  ),
  truncation_side: Type.Optional(
    Type.Union([Type.Literal('left'), Type.Literal('right')], {
      default: 'left',
      description: 'Where the prompt is cut: `left` keeps its end',
    }),
  ),
};

const StreamFlag = (description: string) =>
  Type.Optional(Type.Union([Type.Boolean(), Type.Null()], { description }));

export const requestFields = {
  model: Type.Optional(
    Type.String({ description: 'A name of `/v1/models`; by default the first. Others are a 404' }),
  ),
  stream: Type.Optional(
    Type.Boolean({ default: false, description: 'Server-sent events, a chunk per token' }),
  ),
  stream_options: Type.Optional(
    Type.Object(
      {
        include_usage: StreamFlag('A last chunk with `usage`'),
        continuous_usage_stats: StreamFlag('`usage` on every chunk, with `include_usage`'),
      },
      {
        description:
          '`include_usage`: a last chunk with `usage`; `continuous_usage_stats` with it: on every chunk. Needs `stream`',
      },
    ),
  ),
  stream_interval: Type.Optional(
    Type.Integer({
      minimum: 1,
      description:
        'Tokens per chunk, but for the first and the last; 1, or --stream-interval. Needs `stream`',
    }),
  ),
  priority: Type.Optional(
    Type.Integer({
      default: 0,
      description: 'Lower runs first; other than 0 needs --scheduling-policy priority',
    }),
  ),
  request_id: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 512,
      description: 'Part of the answer’s `id`; the header X-Request-Id wins',
    }),
  ),
  cache_salt: Type.Optional(
    Type.String({ minLength: 1, description: 'Cached prompt starts are shared among equal salts only' }),
  ),
  return_token_ids: Type.Optional(
    Type.Boolean({ default: false, description: '`token_ids` and `prompt_token_ids` in the answer' }),
  ),
  return_tokens_as_token_ids: Type.Optional(
    Type.Boolean({
      description: 'Spell tokens of logprobs as `token_id:<id>`; --return-tokens-as-token-ids is the default',
    }),
  ),
};
