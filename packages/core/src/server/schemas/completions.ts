import { type Static, Type } from 'typebox';

import { requestFields, samplingFields, TokenIds } from './sampling.js';

export const CompletionRequest = Type.Object(
  {
    ...requestFields,
    ...samplingFields,
    prompt: Type.Union(
      [
        Type.String(),
        Type.Array(Type.String(), { minItems: 1 }),
        TokenIds,
        Type.Array(TokenIds, { minItems: 1 }),
      ],
      { description: 'a string, a list of strings, a list of token ids, or a list of lists of token ids' },
    ),
    echo: Type.Optional(Type.Boolean({ description: 'Put the prompt before the answer' })),
    logprobs: Type.Optional(
      Type.Integer({ minimum: -1, description: 'Top logprobs per token; -1: the vocabulary' }),
    ),
  },
  { description: 'OpenAI completions, with the additions of vLLM' },
);

export type CompletionRequest = Static<typeof CompletionRequest>;
