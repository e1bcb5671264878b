import { type Static, Type } from 'typebox';

import { requestFields, samplingFields, TokenIds } from './sampling.js';

export const CompletionRequest = Type.Object(
  {
    prompt: Type.Union(
      [
        Type.String(),
        Type.Array(Type.String(), { minItems: 1 }),
        TokenIds,
        Type.Array(TokenIds, { minItems: 1 }),
      ],
      { description: 'One prompt or several, as text or as token ids' },
    ),
    ...requestFields,
    ...samplingFields,
    echo: Type.Optional(Type.Boolean({ default: false, description: 'Put the prompt before the answer' })),
    logprobs: Type.Optional(
      Type.Integer({
        minimum: -1,
        description:
          'Log-probabilities of the tokens and of this many alternatives each; -1: of the vocabulary. At most --max-logprobs',
      }),
    ),
  },
  { description: 'OpenAI completions, with the additions of vLLM' },
);

export type CompletionRequest = Static<typeof CompletionRequest>;
