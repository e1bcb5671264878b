import { type Static, Type } from 'typebox';

import { ChatMessageSchema, templateFields } from './chat-completions.js';
import { TokenIds } from './sampling.js';

export const TokenizeRequest = Type.Object({
  ...templateFields,
  model: Type.Optional(Type.String()),
  prompt: Type.Optional(Type.String()),
  messages: Type.Optional(Type.Array(ChatMessageSchema, { minItems: 1 })),
  add_special_tokens: Type.Optional(Type.Boolean()),
  return_token_strs: Type.Optional(Type.Boolean()),
});

export const TokenizeResponse = Type.Object({
  count: Type.Integer(),
  max_model_len: Type.Integer(),
  tokens: Type.Array(Type.Integer()),
  token_strs: Type.Union([Type.Array(Type.String()), Type.Null()]),
});

export const DetokenizeRequest = Type.Object({
  model: Type.Optional(Type.String()),
  tokens: TokenIds,
});

export const DetokenizeResponse = Type.Object({ prompt: Type.String() });

export type TokenizeRequest = Static<typeof TokenizeRequest>;
export type DetokenizeRequest = Static<typeof DetokenizeRequest>;
