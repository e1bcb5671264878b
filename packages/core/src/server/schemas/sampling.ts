/** The sampling fields that completions and chat share. A field that is null counts as absent (see read-body.ts). */
import { Type } from 'typebox';

export const TokenIds = Type.Array(Type.Integer({ minimum: 0 }), { description: 'a list of token ids' });

export const samplingFields = {
  max_tokens: Type.Optional(Type.Integer({ minimum: 0, description: 'Tokens to generate at most' })),
  temperature: Type.Optional(Type.Number({ minimum: 0, maximum: 2 })),
  top_p: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 1 })),
  top_k: Type.Optional(Type.Integer({ minimum: -1, description: '0 or -1: all' })),
  min_p: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
  presence_penalty: Type.Optional(Type.Number({ minimum: -2, maximum: 2 })),
  frequency_penalty: Type.Optional(Type.Number({ minimum: -2, maximum: 2 })),
  repetition_penalty: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
  n: Type.Optional(Type.Integer({ minimum: 1, description: 'Choices per prompt' })),
  seed: Type.Optional(Type.Integer({ description: '-1: a random one' })),
  stop: Type.Optional(
    Type.Union([Type.String({ minLength: 1 }), Type.Array(Type.String({ minLength: 1 }))], {
      description: 'a string or a list of strings, none of them empty',
    }),
  ),
  stop_token_ids: Type.Optional(TokenIds),
  include_stop_str_in_output: Type.Optional(Type.Boolean()),
  ignore_eos: Type.Optional(Type.Boolean()),
  min_tokens: Type.Optional(Type.Integer({ minimum: 0 })),
  logit_bias: Type.Optional(
    Type.Record(Type.String(), Type.Number(), { description: 'Token id to bias; clamped to -100…100' }),
  ),
  allowed_token_ids: Type.Optional(Type.Array(Type.Integer({ minimum: 0 }), { minItems: 1 })),
  bad_words: Type.Optional(Type.Array(Type.String({ minLength: 1 }))),
  prompt_logprobs: Type.Optional(Type.Integer({ minimum: -1 })),
  skip_special_tokens: Type.Optional(Type.Boolean()),
  add_special_tokens: Type.Optional(Type.Boolean()),
  truncate_prompt_tokens: Type.Optional(
    Type.Integer({ minimum: -1, description: 'Keep this many tokens of the prompt; -1: as many as fit' }),
  ),
  truncation_side: Type.Optional(
    Type.Union([Type.Literal('left'), Type.Literal('right')], {
      description: "'left' (keeps the end) or 'right'",
    }),
  ),
};

export const requestFields = {
  model: Type.Optional(Type.String({ description: 'One of /v1/models' })),
  stream: Type.Optional(Type.Boolean()),
  stream_options: Type.Optional(
    Type.Object({
      include_usage: Type.Optional(
        Type.Union([Type.Boolean(), Type.Null()], { description: 'true or false' }),
      ),
      continuous_usage_stats: Type.Optional(
        Type.Union([Type.Boolean(), Type.Null()], { description: 'true or false' }),
      ),
    }),
  ),
  stream_interval: Type.Optional(Type.Integer({ minimum: 1, description: 'Tokens per stream chunk' })),
  priority: Type.Optional(
    Type.Integer({ description: 'Lower runs first; needs --scheduling-policy priority' }),
  ),
  request_id: Type.Optional(Type.String({ minLength: 1, maxLength: 512 })),
  cache_salt: Type.Optional(Type.String({ minLength: 1 })),
  return_token_ids: Type.Optional(Type.Boolean()),
  return_tokens_as_token_ids: Type.Optional(Type.Boolean()),
  user: Type.Optional(Type.String()),
};
