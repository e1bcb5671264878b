import { type Static, Type } from 'typebox';

import { requestFields, samplingFields } from './sampling.js';

const ContentPart = Type.Object({ type: Type.String(), text: Type.Optional(Type.String()) });

export const ChatMessageSchema = Type.Object({
  role: Type.String({ minLength: 1 }),
  content: Type.Optional(Type.Union([Type.String(), Type.Array(ContentPart), Type.Null()])),
  tool_calls: Type.Optional(Type.Union([Type.Array(Type.Object({})), Type.Null()])),
});

/** What turns messages into a prompt; /tokenize takes these too. */
export const templateFields = {
  add_generation_prompt: Type.Optional(
    Type.Boolean({ default: true, description: 'End the prompt where the answer begins' }),
  ),
  continue_final_message: Type.Optional(
    Type.Boolean({
      default: false,
      description: 'Leave the last message open, for the answer to go on with it; not with the former',
    }),
  ),
  documents: Type.Optional(Type.Array(Type.Object({}), { description: 'The template’s `documents`' })),
  chat_template: Type.Optional(
    Type.String({ description: 'Jinja in place of the model’s; needs --trust-request-chat-template' }),
  ),
  chat_template_kwargs: Type.Optional(Type.Object({}, { description: 'Further variables of the template' })),
};

export const ChatCompletionRequest = Type.Object(
  {
    messages: Type.Array(ChatMessageSchema, {
      minItems: 1,
      description:
        'The conversation: `role`, `content` (text, or parts of type `text`), and what else the template reads',
    }),
    ...requestFields,
    ...samplingFields,
    max_completion_tokens: Type.Optional(Type.Integer({ minimum: 1, description: 'Wins over `max_tokens`' })),
    logprobs: Type.Optional(
      Type.Boolean({ default: false, description: 'Log-probabilities of the answer’s tokens' }),
    ),
    top_logprobs: Type.Optional(
      Type.Integer({
        minimum: -1,
        default: 0,
        description:
          'And of this many alternatives each; -1: of the vocabulary. At most --max-logprobs; needs `logprobs`',
      }),
    ),
    ...templateFields,
    echo: Type.Optional(
      Type.Boolean({
        default: false,
        description: 'Put the last message before the answer that goes on with it',
      }),
    ),
    reasoning_effort: Type.Optional(
      Type.String({
        description:
          'A template variable; `enable_thinking` is another, false for "none" and true for the rest',
      }),
    ),
    return_prompt_text: Type.Optional(
      Type.Boolean({ default: false, description: '`prompt_text` in the answer: what the template made' }),
    ),
  },
  { description: 'OpenAI chat completions, with the additions of vLLM' },
);

export type ChatMessageBody = Static<typeof ChatMessageSchema>;
export type ChatCompletionRequest = Static<typeof ChatCompletionRequest>;
