/** Sends a request to an OpenAI-compatible server and watches its answer stream in. Costs little: it shares the cores it measures. */
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { finished } from 'node:stream/promises';

import type { RequestTrace } from './request-trace.js';
import type { BenchRequest } from './requests.js';

/** `openai`: completions; `openai-chat`: chat completions. */
export const backends = ['openai', 'openai-chat'] as const;

export interface Target {
  readonly url: URL;
  readonly backend: (typeof backends)[number];
  readonly model: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Whether answers must have all the tokens that were asked for. */
  readonly ignoreEos: boolean;
  readonly temperature: number;
  /** Laid over every request. */
  readonly extraBody: Readonly<Record<string, unknown>>;
}

/** The parts of a streamed chunk that count here. */
interface Chunk {
  readonly choices?: readonly Choice[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
  readonly error?: { readonly message?: string } | string;
}

interface Choice {
  readonly text?: string;
  readonly delta?: {
    readonly role?: string;
    readonly content?: string | null;
    readonly reasoning_content?: string | null;
  };
  readonly token_ids?: readonly number[] | null;
  readonly finish_reason?: string | null;
}

/** Resolves in any case: what went wrong is the trace's `error`. */
export async function streamRequest(target: Target, request: BenchRequest): Promise<RequestTrace> {
  const watch = new AnswerWatch(performance.now());
  try {
    const response = await send(target, JSON.stringify(requestBody(target, request)));
    if (response.statusCode === 200) await readEvents(response, watch);
    else watch.fail(`status ${response.statusCode}: ${(await readText(response)).slice(0, 300)}`);
  } catch (error) {
    watch.fail(error instanceof Error ? error.message || String(error) : String(error));
  }
  return watch.trace(target, request);
}

function requestBody({ backend, model, ignoreEos, temperature, extraBody }: Target, request: BenchRequest) {
  const { prompt, numOutputTokens } = request;
  const asked =
    backend === 'openai'
      ? { prompt, max_tokens: numOutputTokens }
      : { messages: [{ role: 'user', content: prompt }], max_completion_tokens: numOutputTokens };
  return {
    model,
    ...asked,
    temperature,
    stream: true,
    stream_options: { include_usage: true },
    ...(ignoreEos ? { ignore_eos: true } : {}),
    ...extraBody,
  };
}

function send({ url, headers }: Target, body: string): Promise<IncomingMessage> {
  const open = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const outgoing: ClientRequest = open(url, {
      method: 'POST',
      agent: false,
      headers: { 'content-type': 'application/json', ...headers },
    });
    outgoing.on('response', resolve).on('error', reject);
    outgoing.end(body);
  });
}

/** Listens for data, as a loop over the response would see it later than it came. */
function readEvents(response: IncomingMessage, watch: AnswerWatch): Promise<void> {
  let held = '';
  response.setEncoding('utf8');
  response.on('data', (text: string) => {
    const nowMs = performance.now();
    const lines = (held + text).split('\n');
    held = lines.pop() ?? '';
    for (const line of lines) if (line.startsWith('data:')) watch.event(line.slice(5).trim(), nowMs);
  });
  return finished(response);
}

async function readText(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let all = '';
  for await (const text of response) all += String(text);
  return all;
}

function parseChunk(data: string): Chunk {
  try {
    return JSON.parse(data) as Chunk;
  } catch {
    return { error: `an event is not JSON: ${data.slice(0, 80)}` };
  }
}

/** Puts a trace together, event by event. */
class AnswerWatch {
  readonly #startMs: number;
  readonly #pieceMs: number[] = [];
  #text = '';
  #usage: Chunk['usage'] = undefined;
  #hasTokenIds = false;
  #isDone = false;
  #error: string | undefined;

  constructor(startMs: number) {
    this.#startMs = startMs;
  }

  event(data: string, nowMs: number): void {
    if (data === '[DONE]') {
      this.#isDone = true;
      return;
    }
    const { choices, usage, error } = parseChunk(data);
    if (error !== undefined)
      this.fail(typeof error === 'string' ? error : (error.message ?? 'an error event'));
    this.#usage = usage ?? this.#usage;
    for (const choice of choices ?? []) this.#choice(choice, nowMs);
  }

  /** Heads that only name the role, and tails that only say why it ended, bring no token. */
  #choice({ text, delta, token_ids: tokenIds, finish_reason: finishReason }: Choice, nowMs: number): void {
    const news = text ?? delta?.content ?? delta?.reasoning_content ?? '';
    const hasTokenIds = (tokenIds ?? []).length > 0;
    this.#text += news;
    this.#hasTokenIds ||= hasTokenIds;
    const isHead = delta?.role !== undefined;
    const isTail = (finishReason ?? null) !== null;
    if (news !== '' || hasTokenIds || !(isHead || isTail)) this.#pieceMs.push(nowMs);
  }

  fail(error: string): void {
    this.#error ??= error;
  }

  trace(target: Target, request: BenchRequest): RequestTrace {
    return {
      numPromptTokens: this.#usage?.prompt_tokens ?? request.numPromptTokens ?? 0,
      numOutputTokens: this.#usage?.completion_tokens ?? 0,
      startMs: this.#startMs,
      pieceMs: this.#pieceMs,
      endMs: performance.now(),
      text: this.#text,
      error: this.#error ?? this.#flaw(target, request),
    };
  }

  /** How the answer differs from what was asked for. */
  #flaw(
    { backend, ignoreEos }: Target,
    { numPromptTokens, numOutputTokens }: BenchRequest,
  ): string | undefined {
    if (!this.#isDone) return 'the stream ended without [DONE]';
    if (this.#usage === null || this.#usage === undefined) return 'the server counted no tokens (no usage)';
    const { prompt_tokens: numRead, completion_tokens: numMade } = this.#usage;
    // A few tokens may be parts of a character.
    const lacksText = this.#text === '' && !this.#hasTokenIds && numMade >= 8;
    if (this.#pieceMs.length === 0 || lacksText) return 'the answer is empty';
    if (backend === 'openai' && numPromptTokens !== undefined && numRead !== numPromptTokens)
      return `the server read ${numRead} prompt tokens of ${numPromptTokens}`;
    if (ignoreEos && numMade !== numOutputTokens)
      return `the answer has ${numMade} tokens, not the ${numOutputTokens} asked for; where the server knows no ignore_eos, use --no-ignore-eos`;
    if (numMade < 1 || numMade > numOutputTokens)
      return `the answer has ${numMade} tokens of ${numOutputTokens}`;
    return undefined;
  }
}
