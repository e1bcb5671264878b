/** What the routes answer, for /openapi.json; answers are written by hand (see generation/). */
import { Type } from 'typebox';

export const ErrorResponse = Type.Object({
  error: Type.Object({
    message: Type.String(),
    type: Type.String(),
    param: Type.Union([Type.String(), Type.Null()]),
    code: Type.Integer({ description: 'The HTTP status' }),
    tenon_code: Type.String({ description: 'A code of docs/errors.md' }),
  }),
});

const Usage = Type.Object({
  prompt_tokens: Type.Integer(),
  completion_tokens: Type.Integer(),
  total_tokens: Type.Integer(),
  prompt_tokens_details: Type.Optional(Type.Object({ cached_tokens: Type.Integer() })),
});

const answerFields = {
  id: Type.String(),
  created: Type.Integer(),
  model: Type.String(),
  system_fingerprint: Type.String(),
  usage: Usage,
};

const reasons = ['stop', 'length', 'repetition', 'abort'];
const FinishReason = (names: readonly string[]) => Type.Union(names.map((name) => Type.Literal(name)));

const choiceFields = {
  index: Type.Integer(),
  finish_reason: FinishReason(reasons),
  stop_reason: Type.Union([Type.String(), Type.Integer(), Type.Null()]),
  token_ids: Type.Optional(Type.Array(Type.Integer())),
};

export const CompletionResponse = Type.Object({
  ...answerFields,
  object: Type.Literal('text_completion'),
  choices: Type.Array(
    Type.Object({
      ...choiceFields,
      text: Type.String(),
      logprobs: Type.Union([Type.Object({}), Type.Null()]),
    }),
  ),
});

const ToolCall = Type.Object({
  id: Type.String(),
  type: Type.Literal('function'),
  function: Type.Object({ name: Type.String(), arguments: Type.String({ description: 'JSON' }) }),
});

export const ChatCompletionResponse = Type.Object({
  ...answerFields,
  object: Type.Literal('chat.completion'),
  choices: Type.Array(
    Type.Object({
      ...choiceFields,
      finish_reason: FinishReason([...reasons, 'tool_calls']),
      message: Type.Object({
        role: Type.String(),
        content: Type.Union([Type.String(), Type.Null()]),
        tool_calls: Type.Optional(Type.Array(ToolCall)),
      }),
      logprobs: Type.Union([Type.Object({}), Type.Null()]),
    }),
  ),
});

export const ModelCard = Type.Object({
  id: Type.String(),
  object: Type.Literal('model'),
  created: Type.Integer(),
  owned_by: Type.Literal('tenon'),
  root: Type.String(),
  parent: Type.Null(),
  max_model_len: Type.Integer(),
  backend: Type.Object(
    { id: Type.String(), version: Type.String(), device: Type.String() },
    { description: 'What serves it' },
  ),
  permission: Type.Array(Type.Object({})),
});

export const ModelList = Type.Object({ object: Type.Literal('list'), data: Type.Array(ModelCard) });

/** For every route that can fail. */
export const errorResponses = { '4xx': ErrorResponse, '5xx': ErrorResponse };
