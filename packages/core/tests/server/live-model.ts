/** The stories model on the reference backend behind the HTTP app, all in this process: real answers in milliseconds. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { FastifyInstance } from 'fastify';
import { expect } from 'vitest';

import { referenceBackend } from '../../src/conformance/reference-backend.js';
import { createEngine } from '../../src/container.js';
import type { Engine } from '../../src/engine/types.js';
import type { ToolParserExtension } from '../../src/extensions/tool-parser.js';
import { resolveSamplingParams } from '../../src/sampling/resolve-sampling-params.js';
import { createApp } from '../../src/server/app.js';
import type { Api } from '../../src/server/request-fields.js';
import { temporaryFolder } from '../fixtures/model-files.js';
import { parseSse } from './sse.js';

const stories = join(import.meta.dirname, '../../../model-stories/model');
const examples = join(import.meta.dirname, '../../../../plugins-template/examples');

export const bosTokenId = 0;
export const specialTokenId = 1;
export const eosTokenId = 2;
export const vocabSize = 4096;
export const maxNumSeqs = 2;
export const maxModelLen = 96;
export const prompt = 'Once upon a time there was a little fox who lived in the deep dark forest with his';
export const messages = [{ role: 'user', content: 'Tell me a story about a dog and a bird.' }];

/** The model's own template, which shows further variables too. */
const chatTemplate = `{% if documents %}{{ documents[0]['title'] + '\\n' }}{% endif %}{% if mood %}{{ 'mood ' + mood + '\\n' }}{% endif %}{% if reasoning_effort %}{{ 'effort ' + reasoning_effort + (' on' if enable_thinking else ' off') + '\\n' }}{% endif %}{% if tools %}{{ 'tools ' + tools[0].function.name + '\\n' }}{% endif %}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`;

export interface Choice {
  readonly index: number;
  readonly text?: string;
  readonly message?: {
    readonly role: string;
    readonly content: string | null;
    readonly tool_calls?: readonly {
      readonly function: { readonly name: string; readonly arguments: string };
    }[];
  };
  readonly token_ids: readonly number[];
  readonly prompt_token_ids?: readonly number[];
  readonly prompt_logprobs?: PromptLogprobs;
  readonly logprobs: unknown;
  readonly finish_reason: string;
  readonly stop_reason: string | number | null;
}

type PromptLogprobs = readonly (Readonly<Record<string, { readonly logprob: number }>> | null)[];

export interface Answer {
  readonly id: string;
  readonly model: string;
  readonly choices: readonly [Choice, ...Choice[]];
  readonly usage: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
  };
  readonly prompt_token_ids?: readonly number[];
  readonly prompt_logprobs?: PromptLogprobs;
  readonly prompt_text?: string;
}

export interface ErrorBody {
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: number;
  readonly tenon_code: string;
}

type Response = Awaited<ReturnType<FastifyInstance['inject']>>;

/** One of the two APIs; requests are greedy, of 5 tokens, with token ids, unless they say otherwise. */
export class LiveApi {
  readonly api: Api;
  readonly engine: Engine;
  readonly #app: FastifyInstance;
  readonly #defaults: Readonly<Record<string, unknown>>;
  readonly #url: string;
  #plain: Promise<Answer> | undefined;

  constructor(api: Api, engine: Engine, app: FastifyInstance) {
    this.api = api;
    this.engine = engine;
    this.#app = app;
    this.#url = api === 'chat' ? '/v1/chat/completions' : '/v1/completions';
    const input = api === 'chat' ? { messages } : { prompt };
    this.#defaults = { ...input, temperature: 0, max_tokens: 5, return_token_ids: true };
  }

  /** Without fields: asked once. */
  async ask(fields: object = {}): Promise<Answer> {
    if (Object.keys(fields).length === 0) return (this.#plain ??= this.#ask({}));
    return this.#ask(fields);
  }

  async #ask(fields: object): Promise<Answer> {
    const response = await this.post(fields);
    expect(response.statusCode, response.body).toBe(200);
    return response.json();
  }

  async error(fields: object): Promise<ErrorBody> {
    const response = await this.post(fields);
    const { error } = response.json<{ error: ErrorBody }>();
    expect(response.statusCode).toBe(error.code);
    return error;
  }

  async stream(fields: object = {}): Promise<ReturnType<typeof parseSse>['chunks']> {
    const response = await this.post({ ...fields, stream: true });
    expect(response.headers['content-type'], response.body).toContain('text/event-stream');
    const { chunks, isDone } = parseSse(response.body);
    expect(isDone).toBe(true);
    return chunks;
  }

  /** Of `tokenId` as the next one, asked of the engine. */
  async logprobAfter(promptTokenIds: readonly number[], tokenId: number): Promise<number> {
    const asked = { temperature: 0, maxTokens: 1, logprobs: -1, outputKind: 'final' } as const;
    const params = resolveSamplingParams(asked, {}, this.engine.info);
    const request = { requestId: 'oracle', prompt: { tokenIds: promptTokenIds }, params };
    for await (const { outputs } of this.engine.generate(request)) {
      const found = outputs[0]?.logprobs?.[0]?.find((entry) => entry.tokenId === tokenId);
      if (found !== undefined) return found.logprob;
    }
    throw new Error(`no logprob of token ${tokenId}`);
  }

  async post(fields: object): Promise<Response> {
    const payload = { ...this.#defaults, ...fields };
    return this.#app.inject({ method: 'POST', url: this.#url, payload });
  }

  /** The greedy tokens. */
  async tokens(fields: object = {}): Promise<readonly number[]> {
    return (await this.ask(fields)).choices[0].token_ids;
  }

  async text(fields: object = {}): Promise<string> {
    return textOf((await this.ask(fields)).choices[0]);
  }
}

export function textOf({ text, message }: Choice): string {
  return text ?? message?.content ?? '';
}

export function promptTokensOf(answer: Answer): readonly number[] {
  return answer.prompt_token_ids ?? answer.choices[0].prompt_token_ids ?? [];
}

/** For answers of a model that knows no tools: each word calls the first, with itself as the argument. */
const wordsToolParser: ToolParserExtension = {
  create: ({ tools }) => {
    let text = '';
    return {
      push: (piece) => {
        text += piece;
        return [];
      },
      finish: () =>
        text.trim().split(/\s+/).flatMap((word) => [
          { type: 'call', name: tools[0]!.function.name },
          { type: 'arguments', json: JSON.stringify({ word }) },
        ]), // prettier-ignore
    };
  },
};

export interface LiveModel extends AsyncDisposable {
  readonly completions: LiveApi;
  readonly chat: LiveApi;
}

export async function startLiveModel(): Promise<LiveModel> {
  using tokenizer = temporaryFolder();
  const read = (name: string): object => JSON.parse(readFileSync(join(stories, name), 'utf8')) as object;
  tokenizer.write('tokenizer.json', { ...read('tokenizer.json'), post_processor: withBos });
  tokenizer.write('tokenizer_config.json', {
    ...read('tokenizer_config.json'),
    chat_template: chatTemplate,
  });
  const { engine } = await createEngine(
    stories,
    {
      tokenizer: tokenizer.path,
      servedModelName: ['stories', 'also-stories'],
      dtype: 'float32',
      blockSize: 16,
      maxModelLen,
      maxNumSeqs,
      maxLogprobs: -1,
      schedulingPolicy: 'priority',
      generationConfig: 'tenon',
      plugins: [join(examples, 'logits-processor-example')],
      logitsProcessors: ['only-digits'],
    },
    { backend: referenceBackend },
  );
  const app = await createApp({
    engine,
    options: {
      servedModelNames: ['stories', 'also-stories'],
      trustRequestChatTemplate: true,
      enableAutoToolChoice: true,
      disableDocs: true,
    },
    toolParser: { name: 'words', extension: wordsToolParser },
  });
  return {
    completions: new LiveApi('completions', engine, app),
    chat: new LiveApi('chat', engine, app),
    [Symbol.asyncDispose]: () => engine.close(),
  };
}

const bos = { SpecialToken: { id: '<|endoftext|>', type_id: 0 } };
const withBos = {
  type: 'TemplateProcessing',
  single: [bos, { Sequence: { id: 'A', type_id: 0 } }],
  pair: [bos, { Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
  special_tokens: { '<|endoftext|>': { id: '<|endoftext|>', ids: [bosTokenId], tokens: ['<|endoftext|>'] } },
};
