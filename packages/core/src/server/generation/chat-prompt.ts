/** A chat request's prompt: messages through the template to text and token ids. */
import type { Prompt } from '../../engine/types.js';
import { TenonError } from '../../errors.js';
import type { Tool } from '../../extensions/tool-parser.js';
import type { Tokenizer } from '../../tokenizer/types.js';
import type { ChatMessageBody } from '../schemas/chat-completions.js';
import type { ServerContext } from '../server-context.js';
import { shownTools } from '../tool-calls/tool-calling.js';
import { contentFormatOf, templateMessages } from './chat-messages.js';
import { type Truncation, truncatePrompt } from './truncate-prompt.js';

export interface ChatPromptBody extends Truncation {
  readonly messages: readonly ChatMessageBody[];
  readonly add_generation_prompt?: boolean;
  readonly continue_final_message?: boolean;
  readonly documents?: readonly object[];
  readonly tools?: readonly Tool[];
  readonly tool_choice?: unknown;
  readonly chat_template?: string;
  readonly chat_template_kwargs?: object;
  readonly add_special_tokens?: boolean;
  readonly reasoning_effort?: string;
}

export interface ChatPrompt {
  readonly text: string;
  readonly prompt: Prompt;
  readonly addSpecialTokens: boolean;
}

export async function chatPrompt(
  body: ChatPromptBody,
  context: ServerContext,
  maxTokens: number | undefined,
): Promise<ChatPrompt> {
  const tokenizer = chatTokenizer(context);
  const text = renderMessages(body, tokenizer, context);
  const addSpecialTokens = body.add_special_tokens ?? false;
  if (body.truncate_prompt_tokens === undefined) return { text, prompt: { text }, addSpecialTokens };
  const tokenIds = await tokenizer.encodeAsync(text, { addSpecialTokens });
  const kept = truncatePrompt(tokenIds, body, context.engine.info.maxModelLen, maxTokens);
  return { text, prompt: { tokenIds: kept }, addSpecialTokens };
}

export function renderMessages(body: ChatPromptBody, tokenizer: Tokenizer, context: ServerContext): string {
  const { options } = context;
  if (body.add_generation_prompt === true && body.continue_final_message === true) {
    const message =
      "'continue_final_message' and 'add_generation_prompt' exclude each other; set one of them to false";
    throw new TenonError('request.invalid-value', message, { param: 'continue_final_message' });
  }
  if (body.chat_template !== undefined && !options.trustRequestChatTemplate) {
    const message = "'chat_template' needs a server that runs with --trust-request-chat-template";
    throw new TenonError('request.invalid-value', message, { param: 'chat_template' });
  }
  const chatTemplate = body.chat_template ?? options.chatTemplate;
  const format =
    options.chatTemplateContentFormat === 'auto'
      ? contentFormatOf(chatTemplate ?? tokenizer.chatTemplate)
      : options.chatTemplateContentFormat;
  const continueFinalMessage = body.continue_final_message ?? false;
  return tokenizer.applyChatTemplate(templateMessages(body.messages, format), {
    chatTemplate,
    addGenerationPrompt: body.add_generation_prompt ?? !continueFinalMessage,
    continueFinalMessage,
    documents: body.documents,
    tools: shownTools(body, context),
    kwargs: { ...reasoningVariables(body.reasoning_effort), ...body.chat_template_kwargs },
  });
}

function chatTokenizer({ engine }: ServerContext): Tokenizer {
  if (engine.tokenizer !== undefined) return engine.tokenizer;
  throw new TenonError(
    'request.no-tokenizer',
    'chat needs a tokenizer, and the server runs with --skip-tokenizer-init: send token ids to /v1/completions',
    { param: 'messages' },
  );
}

function reasoningVariables(effort: string | undefined): Record<string, unknown> {
  return effort === undefined ? {} : { reasoning_effort: effort, enable_thinking: effort !== 'none' };
}
