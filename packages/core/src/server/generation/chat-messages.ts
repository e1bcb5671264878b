/** From a request's messages to what chat templates expect. */
import { TenonError } from '../../errors.js';
import type { ChatMessage } from '../../tokenizer/types.js';
import type { ChatMessageBody } from '../schemas/chat-completions.js';

export type ContentFormat = 'string' | 'openai';

/** Whether a template walks over content parts ('openai'), or takes content as one string. */
export function contentFormatOf(template: string | undefined): ContentFormat {
  return /\bin\s+\w+(?:\.content|\[\s*['"]content['"]\s*\])\s*[%|]/.test(template ?? '')
    ? 'openai'
    : 'string';
}

export function templateMessages(messages: readonly ChatMessageBody[], format: ContentFormat): ChatMessage[] {
  return messages.map((message, i) => {
    const parts = contentParts(message, i);
    const content = format === 'string' ? joined(message, parts) : parts;
    const { tool_calls: _, ...rest } = message;
    return { ...rest, ...reasoningOf(message), content, ...toolCallsOf(message, i) };
  });
}

type TextPart = { readonly type: 'text'; readonly text: string };

const textTypes: ReadonlySet<string> = new Set(['text', 'input_text', 'output_text', 'refusal']);

/** Null where the message has no content (an assistant's that only calls tools). */
function contentParts({ content }: ChatMessageBody, messageIndex: number): TextPart[] | null {
  if (content === undefined || content === null) return null;
  if (typeof content === 'string') return [{ type: 'text', text: content }];
  return content.map((part, i) => {
    const param = `messages.${messageIndex}.content.${i}`;
    if (!textTypes.has(part.type)) {
      const message = `'${param}.type' is '${part.type}', which is not supported: only text is`;
      throw new TenonError('request.unsupported-parameter', message, { param: `${param}.type` });
    }
    const text = part.text ?? (part as { refusal?: unknown }).refusal;
    if (typeof text === 'string') return { type: 'text', text };
    throw new TenonError('request.invalid-body', `'${param}.text' must be a string`, {
      param: `${param}.text`,
    });
  });
}

function joined({ content }: ChatMessageBody, parts: readonly TextPart[] | null): string {
  if (typeof content === 'string') return content;
  return (parts ?? []).map((part) => part.text).join('\n');
}

/** Both spellings are in use among templates. */
function reasoningOf(message: object): Record<string, unknown> {
  const { reasoning, reasoning_content: older } = message as {
    reasoning?: unknown;
    reasoning_content?: unknown;
  };
  const text = reasoning ?? older;
  return text === undefined || text === null ? {} : { reasoning: text, reasoning_content: text };
}

/** Templates want a call's arguments as an object; the API carries them as JSON text. Some ask whether there is the field. */
function toolCallsOf(message: ChatMessageBody, messageIndex: number): Record<string, unknown> {
  if (!Array.isArray(message.tool_calls) || message.tool_calls.length === 0) return {};
  const calls = message.tool_calls.map((call, i) => {
    const fn = (call as { function?: { arguments?: unknown } }).function;
    if (typeof fn?.arguments !== 'string') return call;
    const param = `messages.${messageIndex}.tool_calls.${i}.function.arguments`;
    return { ...call, function: { ...fn, arguments: parsedArguments(fn.arguments, param) } };
  });
  return { tool_calls: calls };
}

function parsedArguments(json: string, param: string): unknown {
  if (json === '') return {};
  try {
    return JSON.parse(json);
  } catch {
    throw new TenonError('request.invalid-body', `'${param}' must be JSON`, { param });
  }
}
