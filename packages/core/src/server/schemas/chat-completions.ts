import { type Static, Type } from 'typebox';

import { requestFields, samplingFields } from './sampling.js';

const ContentPart = Type.Object({ type: Type.String(), text: Type.Optional(Type.String()) });

export const ChatMessageSchema = Type.Object({
  role: Type.String({ minLength: 1 }),
  content: Type.Optional(Type.Union([Type.String(), Type.Array(ContentPart), Type.Null()])),
  tool_calls: Type.Optional(Type.Union([Type.Array(Type.Object({})), Type.Null()])),
});

const ToolSchema = Type.Object({
  type: Type.Literal('function'),
  function: Type.Object({
    name: Type.String({ minLength: 1 }),
    description: Type.Optional(Type.String()),
    parameters: Type.Optional(Type.Object({})),
    strict: Type.Optional(Type.Boolean()),
  }),
});

/** What turns messages into a prompt; /tokenize takes these too. */
export const templateFields = {
  tools: Type.Optional(
    Type.Array(ToolSchema, {
      minItems: 1,
      description:
        'Functions that the answer may call: `type` `function`, `function` with `name`, `description`, `parameters` (a JSON schema). The template’s `tools`',
    }),
  ),
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
    tool_choice: Type.Optional(
      Type.Union(
        [
          Type.Literal('none'),
          Type.Literal('auto'),
          Type.Literal('required'),
          Type.Object({
            type: Type.Literal('function'),
            function: Type.Object({ name: Type.String({ minLength: 1 }) }),
          }),
        ],
        {
          description:
            '`auto`, the default with `tools`: the answer’s calls become `tool_calls`; needs --enable-auto-tool-choice and --tool-call-parser. `none`: they stay text. The others are refused: they need structured output',
        },
      ),
    ),
    parallel_tool_calls: Type.Optional(
      Type.Boolean({ default: true, description: 'False: one call at most; further ones are left out' }),
    ),
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
