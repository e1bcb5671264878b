/** The tool calls of one choice, in the shapes of OpenAI's API: as the deltas of a stream, and put together. */
import { randomUUID } from 'node:crypto';

import { TenonError } from '../../errors.js';
import type { ToolDelta, ToolParser } from '../../extensions/tool-parser.js';
import type { ToolCalling } from './tool-calling.js';

/** `delta` of a stream's chunk. A call's first has its id and name, those that follow parts of its arguments. */
export type ChatDelta =
  { readonly content: string } | { readonly tool_calls: readonly [CallBegin] | readonly [CallMore] };

interface CallBegin {
  readonly index: number;
  readonly id: string;
  readonly type: 'function';
  readonly function: { readonly name: string; readonly arguments: string };
}

interface CallMore {
  readonly index: number;
  readonly function: { readonly arguments: string };
}

export class ToolCallReader {
  readonly #calling: ToolCalling;
  readonly #parser: ToolParser;
  #numCalls = 0;

  constructor(calling: ToolCalling) {
    this.#calling = calling;
    this.#parser = this.#guarded(() => calling.parser.extension.create({ tools: calling.tools }));
  }

  /** Whether a call was made. */
  get hasCalls(): boolean {
    return this.#numCalls > 0;
  }

  /** @throws `internal.extension-failed`, naming the parser. */
  push(text: string): ChatDelta[] {
    return text === '' ? [] : this.#deltas(this.#guarded(() => this.#parser.push(text)));
  }

  finish(): ChatDelta[] {
    return this.#deltas(this.#guarded(() => this.#parser.finish()));
  }

  #deltas(found: readonly ToolDelta[]): ChatDelta[] {
    if (!Array.isArray(found)) throw this.#wrong(found, 'a list');
    return (found as readonly ToolDelta[]).flatMap((delta) => this.#chatDelta(delta));
  }

  #chatDelta(delta: ToolDelta): ChatDelta[] {
    if (delta?.type === 'content' && typeof delta.text === 'string')
      return delta.text === '' ? [] : [{ content: delta.text }];
    if (delta?.type === 'call' && typeof delta.name === 'string') return this.#begin(delta.name);
    if (delta?.type === 'arguments' && typeof delta.json === 'string' && this.hasCalls)
      return this.#more(delta.json);
    throw this.#wrong(delta, "content with text, a call with a name, or the last call's arguments with json");
  }

  #begin(name: string): ChatDelta[] {
    const index = this.#numCalls++;
    if (this.#isSurplus(index)) return [];
    const id = `chatcmpl-tool-${randomUUID().replaceAll('-', '')}`;
    return [{ tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] }];
  }

  #more(json: string): ChatDelta[] {
    const index = this.#numCalls - 1;
    return this.#isSurplus(index) ? [] : [{ tool_calls: [{ index, function: { arguments: json } }] }];
  }

  #isSurplus(index: number): boolean {
    return index > 0 && !this.#calling.parallel;
  }

  #guarded<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw this.#failure(`failed: ${reason}`, error);
    }
  }

  #wrong(answer: unknown, expected: string): TenonError {
    return this.#failure(`answered ${JSON.stringify(answer)}; expected ${expected}`);
  }

  #failure(what: string, cause?: unknown): TenonError {
    const message = `tool parser '${this.#calling.parser.name}' ${what}`;
    return new TenonError('internal.extension-failed', message, { cause });
  }
}

export type ToolCall = Omit<CallBegin, 'index'>;

/** A whole answer: its deltas put together. */
export function joinDeltas(deltas: readonly ChatDelta[]): { content: string; toolCalls: ToolCall[] } {
  let content = '';
  const toolCalls: ToolCall[] = [];
  for (const delta of deltas) {
    if ('content' in delta) {
      content += delta.content;
      continue;
    }
    const [call] = delta.tool_calls;
    if ('id' in call) toolCalls.push({ id: call.id, type: call.type, function: call.function });
    else toolCalls.push(withMore(toolCalls.pop()!, call.function.arguments));
  }
  return { content, toolCalls };
}

function withMore(call: ToolCall, more: string): ToolCall {
  const { name, arguments: begun } = call.function;
  return { ...call, function: { name, arguments: begun + more } };
}
