import { type Static, Type } from 'typebox';

import { requestFields, samplingFields } from './sampling.js';

const ContentPart = Type.Object({ type: Type.String(), text: Type.Optional(Type.String()) });

export const ChatMessageSchema = Type.Object({
  role: Type.String({ minLength: 1 }),
  content: Type.Optional(
    Type.Union([Type.String(), Type.Array(ContentPart), Type.Null()], {
      description: 'a string or a list of content parts',
    }),
  ),
  tool_calls: Type.Optional(
    Type.Union([Type.Array(Type.Object({})), Type.Null()], { description: 'a list of tool calls' }),
  ),
});

/** What turns messages into a prompt; /tokenize takes these too. */
export const templateFields = {
  add_generation_prompt: Type.Optional(Type.Boolean()),
  continue_final_message: Type.Optional(Type.Boolean({ description: 'Leave the last message open' })),
  documents: Type.Optional(Type.Array(Type.Object({}))),
  chat_template: Type.Optional(Type.String({ description: 'Jinja; needs --trust-request-chat-template' })),
  chat_template_kwargs: Type.Optional(Type.Object({}, { description: 'Further variables of the template' })),
};

export const ChatCompletionRequest = Type.Object(
  {
    ...requestFields,
    ...samplingFields,
    ...templateFields,
    messages: Type.Array(ChatMessageSchema, { minItems: 1 }),
    max_completion_tokens: Type.Optional(Type.Integer({ minimum: 1 })),
    logprobs: Type.Optional(Type.Boolean()),
    top_logprobs: Type.Optional(Type.Integer({ minimum: -1 })),
    echo: Type.Optional(Type.Boolean({ description: 'Put the last message before the answer' })),
    reasoning_effort: Type.Optional(
      Type.String({ description: "A template variable; 'none' disables thinking" }),
    ),
    return_prompt_text: Type.Optional(Type.Boolean()),
  },
  { description: 'OpenAI chat completions, with the additions of vLLM' },
);

export type ChatMessageBody = Static<typeof ChatMessageSchema>;
export type ChatCompletionRequest = Static<typeof ChatCompletionRequest>;
