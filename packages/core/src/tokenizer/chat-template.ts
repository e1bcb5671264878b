/** Chat templates (Jinja), with the variables and the rules of transformers' `apply_chat_template`. */
import { Environment, Template } from '@huggingface/jinja';
import { TenonError } from '../errors.js';
import { expectsContentParts } from './content-format.js';
import { stripFunctions, useStripFunctions } from './python-strip.js';
import { strftime } from './strftime.js';
import { BoundedInterpreter, maxRange, tooMuch, withinTime } from './template-limits.js';
import type { ChatMessage, ChatTemplateOptions } from './types.js';

type Message = Record<string, unknown>;

interface CompiledTemplate {
  readonly template: Template;
  /** Whether `content` is a list of parts or one string for this template. */
  readonly wantsParts: boolean;
}

/** Marks the end of the message that is to be continued; the space shows whether the template trims. */
const continueTag = 'CONTINUE_FINAL_MESSAGE_TAG ';

/** Compiled templates kept, the newest: requests may bring their own. */
const maxCompiled = 16;

export class ChatTemplates {
  readonly #templates: ReadonlyMap<string, string>;
  readonly #tokens: Readonly<Record<string, string>>;
  readonly #compiled = new Map<string, CompiledTemplate>();

  constructor(templates: ReadonlyMap<string, string>, tokens: Readonly<Record<string, string>>) {
    this.#templates = templates;
    this.#tokens = tokens;
  }

  render(messages: readonly ChatMessage[], options: ChatTemplateOptions): string {
    checkOptions(messages, options);
    const { template, wantsParts } = this.#compile(this.#choose(options));
    const prepared = messages.map((message) => prepareMessage(message, wantsParts));
    const finalText = options.continueFinalMessage === true ? tagFinalMessage(prepared) : undefined;
    const rendered = renderTemplate(template, {
      messages: prepared,
      tools: options.tools ?? null,
      documents: options.documents ?? null,
      add_generation_prompt: options.addGenerationPrompt ?? false,
      ...this.#tokens,
      ...options.kwargs,
    });
    return finalText === undefined ? rendered : cutAtTag(rendered, finalText);
  }

  /** The request's template (a name or the text), else `tool_use` when there are tools, else the default one. */
  #choose(options: ChatTemplateOptions): string {
    if (options.chatTemplate !== undefined)
      return this.#templates.get(options.chatTemplate) ?? options.chatTemplate;
    const forTools = options.tools === undefined ? undefined : this.#templates.get('tool_use');
    const chosen = forTools ?? this.#templates.get('default');
    if (chosen !== undefined) return chosen;
    throw new TenonError(
      'request.no-chat-template',
      `the model has no chat template${namesIfAny(this.#templates)}; start the server with --chat-template <file.jinja>, ` +
        'add chat_template.jinja to the model folder, or use plain prompts (completions)',
    );
  }

  #compile(source: string): CompiledTemplate {
    const known = this.#compiled.get(source);
    if (known !== undefined) return known;
    const compiled = compileTemplate(source);
    if (this.#compiled.size >= maxCompiled) this.#compiled.delete(this.#compiled.keys().next().value!);
    this.#compiled.set(source, compiled);
    return compiled;
  }
}

function namesIfAny(templates: ReadonlyMap<string, string>): string {
  return templates.size === 0 ? '' : ` named 'default' (it has ${[...templates.keys()].join(', ')})`;
}

function checkOptions(messages: readonly ChatMessage[], options: ChatTemplateOptions): void {
  if (messages.length === 0) throw templateError('there are no messages: provide at least one', 'messages');
  if (options.continueFinalMessage === true && options.addGenerationPrompt === true) {
    throw templateError(
      'continue_final_message and add_generation_prompt exclude each other: set one of them to false',
      'continue_final_message',
    );
  }
}

function compileTemplate(source: string): CompiledTemplate {
  try {
    return withinTime(() => {
      const template = new Template(source);
      useStripFunctions(template.parsed);
      return { template, wantsParts: expectsContentParts(template.parsed) };
    });
  } catch (error) {
    if (error instanceof TenonError) throw error;
    throw templateError(`the chat template is not valid Jinja: ${messageOf(error)}`, 'chat_template', error);
  }
}

function renderTemplate(template: Template, variables: Record<string, unknown>): string {
  const globals = {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range: pythonRange,
    ...stripFunctions,
    strftime_now: (format: string) => strftime(new Date(), format),
    raise_exception: (message: unknown) => {
      throw templateError(String(message), 'messages');
    },
  };
  try {
    return withinTime(() => {
      const environment = new Environment();
      for (const [name, value] of Object.entries({ ...globals, ...variables })) environment.set(name, value);
      return String(new BoundedInterpreter(environment).run(template.parsed).value);
    });
  } catch (error) {
    if (error instanceof TenonError) throw error;
    throw templateError(`the chat template failed: ${messageOf(error)}`, 'messages', error);
  }
}

function pythonRange(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const numbers: number[] = [];
  for (let i = from; step > 0 ? i < to : step < 0 && i > to; i += step) {
    if (numbers.length >= maxRange) throw tooMuch(`asked for a range of more than ${maxRange} numbers`);
    numbers.push(i);
  }
  return numbers;
}

/** A copy with its content in the template's form and the arguments of tool calls as objects, as templates expect them. */
function prepareMessage(message: ChatMessage, wantsParts: boolean): Message {
  const prepared: Message = { ...message, content: prepareContent(message.content, wantsParts) };
  if (message.content === undefined) delete prepared.content;
  if (Array.isArray(message.tool_calls)) prepared.tool_calls = message.tool_calls.map(parseToolCall);
  return prepared;
}

function prepareContent(content: ChatMessage['content'] | undefined, wantsParts: boolean): unknown {
  if (typeof content === 'string') return wantsParts ? [{ type: 'text', text: content }] : content;
  if (!Array.isArray(content)) return content;
  const parts = content as readonly { readonly text: string }[];
  return wantsParts ? parts.map((part) => ({ ...part })) : parts.map((part) => part.text).join('\n');
}

function parseToolCall(call: unknown): unknown {
  const func = (call as { function?: { arguments?: unknown } } | null)?.function;
  if (typeof func?.arguments !== 'string') return call;
  return { ...(call as object), function: { ...func, arguments: parseArguments(func.arguments) } };
}

function parseArguments(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : text;
  } catch {
    return text;
  }
}

/** Appends the tag to the last message's text; returns the text before it. */
function tagFinalMessage(messages: readonly Message[]): string {
  const last = messages.at(-1)!;
  if (typeof last.content === 'string') {
    const text = last.content;
    last.content = text + continueTag;
    return text;
  }
  const parts = Array.isArray(last.content) ? (last.content as { text?: string }[]) : [];
  const part = parts.findLast((candidate) => candidate.text !== undefined);
  if (part?.text === undefined) {
    throw templateError(
      'continue_final_message is set but the final message has no text to continue',
      'messages',
    );
  }
  const text = part.text;
  part.text = text + continueTag;
  return text;
}

/** Drops what the template put after the final message; if it trimmed the message, the end is trimmed too. */
function cutAtTag(rendered: string, finalText: string): string {
  const at = rendered.lastIndexOf(continueTag.trim());
  if (at < 0 || !rendered.includes(finalText.trim())) {
    throw templateError(
      'continue_final_message is set but the chat template does not keep the final message as it is',
      'continue_final_message',
    );
  }
  const kept = rendered.slice(0, at);
  return rendered.startsWith(continueTag, at) ? kept : kept.trimEnd();
}

function templateError(message: string, param: string, cause?: unknown): TenonError {
  return new TenonError('request.chat-template', message, { param, cause });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
