/** A client of the OpenAI HTTP API, for `chat` and `complete`: fetch and server-sent events. */
import { errorCodes, type ErrorCode, TenonError } from '../errors.js';

export interface StreamChunk {
  readonly choices: readonly {
    readonly text?: string;
    readonly delta?: { readonly content?: string | null };
    readonly finish_reason: string | null;
  }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
}

interface ErrorAnswer {
  readonly error?: string | { readonly message?: string; readonly tenon_code?: string };
}

export interface ModelCard {
  readonly id: string;
  /** Tokens of prompt and answer; not all servers say it. */
  readonly max_model_len?: number;
}

export class ApiClient {
  /** `http://host:port/v1` */
  readonly url: string;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(url: string, apiKey: string | undefined) {
    this.url = url.replace(/\/+$/, '');
    this.#headers = {
      'content-type': 'application/json',
      ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
    };
  }

  /** Names of the served models. Throws `config.server-unreachable` where nobody answers. */
  async models(signal?: AbortSignal): Promise<string[]> {
    return (await this.modelCards(signal)).map(({ id }) => id);
  }

  async modelCards(signal?: AbortSignal): Promise<ModelCard[]> {
    const response = await this.#fetch('/models', { signal });
    const { data } = (await response.json()) as { data?: ModelCard[] };
    return data ?? [];
  }

  /** The chunks of a streamed answer, until [DONE]; an error event is thrown. */
  async *stream(path: string, body: object, signal: AbortSignal): AsyncGenerator<StreamChunk> {
    const response = await this.#fetch(path, {
      method: 'POST',
      body: JSON.stringify({ ...body, stream: true }),
      signal,
    });
    for await (const data of eventData(response.body)) {
      if (data === '[DONE]') return;
      const chunk = JSON.parse(data) as StreamChunk & ErrorAnswer;
      if (chunk.error !== undefined) throw answerError(chunk);
      yield chunk;
    }
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(`${this.url}${path}`, { ...init, headers: this.#headers });
    } catch (error) {
      if (init.signal?.aborted === true) throw error;
      throw unreachable(this.url, error);
    }
    if (response.ok) return response;
    const answer = (await response.json().catch(() => ({}))) as ErrorAnswer;
    if (response.status === 401)
      throw new TenonError('request.unauthorized', `${this.url} wants an --api-key`);
    throw answerError(answer, `${this.url}${path} answered ${response.status}`);
  }
}

function unreachable(url: string, error: unknown): TenonError {
  const { cause } = error as { cause?: { code?: string } };
  const why = cause?.code ?? (error instanceof Error ? error.message : String(error));
  const message = `no server answers at ${url} (${why}); start one with 'tenon serve', or name a model`;
  return new TenonError('config.server-unreachable', message, { cause: error });
}

function answerError({ error }: ErrorAnswer, fallback = 'the server answered with an error'): TenonError {
  if (typeof error !== 'object') return new TenonError('request.invalid-value', error ?? fallback);
  const code = error.tenon_code ?? '';
  const known = Object.hasOwn(errorCodes, code) ? (code as ErrorCode) : 'request.invalid-value';
  return new TenonError(known, error.message ?? fallback);
}

/** The `data` of each event. */
export async function* eventData(body: AsyncIterable<Uint8Array> | null): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let held = '';
  for await (const bytes of body ?? []) {
    held += decoder.decode(bytes, { stream: true });
    const events = held.split(/\r?\n\r?\n/);
    held = events.pop() ?? '';
    for (const event of events) {
      const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'));
      if (lines.length > 0) yield lines.map((line) => line.slice('data:'.length).trimStart()).join('\n');
    }
  }
}
