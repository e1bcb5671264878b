import type { FastifyInstance } from 'fastify';
import { describe, expect, it } from 'vitest';

import { createApp } from '../../src/server/app.js';
import {
  bos,
  ByteTokenizer,
  type Script,
  ScriptedEngine,
  scriptedText,
  scriptedTokens,
} from './scripted-engine.js';
import { parseSse } from './sse.js';

interface Answer {
  id: string;
  object: string;
  model: string;
  system_fingerprint: string;
  usage: {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
    prompt_tokens_details?: object;
  };
  choices: {
    index: number;
    text: string;
    finish_reason: string;
    stop_reason: unknown;
    token_ids?: number[];
    prompt_token_ids?: number[];
    prompt_logprobs?: unknown[];
    logprobs: {
      tokens: string[];
      token_logprobs: (number | null)[];
      top_logprobs: object[];
      text_offset: number[];
    } | null;
  }[];
}

async function start(
  script: Script = {},
  options = {},
): Promise<{ app: FastifyInstance; engine: ScriptedEngine }> {
  const engine = new ScriptedEngine(script);
  return { engine, app: await createApp({ engine, options: { disableDocs: true, ...options } }) };
}

async function complete(app: FastifyInstance, payload: object, headers = {}): Promise<Answer> {
  const response = await app.inject({ method: 'POST', url: '/v1/completions', payload, headers });
  expect(response.statusCode, response.body).toBe(200);
  return response.json<Answer>();
}

async function stream(app: FastifyInstance, payload: object): Promise<ReturnType<typeof parseSse>> {
  const response = await app.inject({
    method: 'POST',
    url: '/v1/completions',
    payload: { ...payload, stream: true },
  });
  expect(response.statusCode, response.body).toBe(200);
  expect(response.headers['content-type']).toContain('text/event-stream');
  return parseSse(response.body);
}

const hello = [bos, ...Buffer.from('hello')];

describe('POST /v1/completions', () => {
  it('answers a text prompt with 16 tokens by default', async () => {
    const { app } = await start({ numCachedTokens: 4 });
    const answer = await complete(app, { model: 'scripted', prompt: 'hello' }, { 'x-request-id': 'mine' });
    expect(answer).toMatchObject({ id: 'cmpl-mine', object: 'text_completion', model: 'scripted' });
    expect(answer.system_fingerprint).toMatch(/^tenon-[\d.]+-tp1-[0-9a-f]{8}$/);
    expect(answer.choices).toEqual([
      {
        index: 0,
        text: scriptedText(hello, 0, 16),
        logprobs: null,
        finish_reason: 'length',
        stop_reason: null,
      },
    ]);
    expect(answer.usage).toEqual({
      prompt_tokens: 6,
      completion_tokens: 16,
      total_tokens: 22,
      prompt_tokens_details: { cached_tokens: 4 },
    });
  });

  it('takes lists of texts, ids and lists of ids, and numbers choices by prompt · n + i', async () => {
    const { app, engine } = await start();
    const ids = await complete(app, { prompt: [104, 105], max_tokens: 2 });
    expect(ids.choices.map((choice) => choice.text)).toEqual([scriptedText([104, 105], 0, 2)]);
    const many = await complete(app, { prompt: [[104], [105]], max_tokens: 2, n: 2, temperature: 1 });
    expect(many.choices.map((choice) => choice.index)).toEqual([0, 1, 2, 3]);
    expect(many.choices.map((choice) => choice.text)).toEqual([
      scriptedText([104], 0, 2),
      scriptedText([104], 1, 2),
      scriptedText([105], 0, 2),
      scriptedText([105], 1, 2),
    ]);
    expect(many.usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 8 });
    const texts = await complete(app, { prompt: ['a', 'b'], max_tokens: 1, add_special_tokens: false });
    expect(texts.usage.prompt_tokens).toBe(2);
    expect(new Set(engine.requests.map((request) => request.requestId)).size).toBe(engine.requests.length);
  });

  it('maps every sampling field to the engine', async () => {
    const { app, engine } = await start();
    await complete(app, {
      prompt: 'x',
      max_tokens: 3,
      min_tokens: 1,
      temperature: 0.5,
      top_p: 0.9,
      top_k: 7,
      min_p: 0.1,
      presence_penalty: 0.25,
      frequency_penalty: -0.5,
      repetition_penalty: 1.2,
      seed: 42,
      stop: 'END',
      stop_token_ids: [3],
      include_stop_str_in_output: true,
      ignore_eos: true,
      logit_bias: { 5: 200 },
      allowed_token_ids: [97, 98],
      bad_words: ['no'],
      skip_special_tokens: false,
      cache_salt: 'salt',
    });
    expect(engine.requests[0]).toMatchObject({ cacheSalt: 'salt', addSpecialTokens: true });
    expect(engine.requests[0]?.params).toMatchObject({
      n: 1,
      maxTokens: 3,
      minTokens: 1,
      temperature: 0.5,
      topP: 0.9,
      topK: 7,
      minP: 0.1,
      presencePenalty: 0.25,
      frequencyPenalty: -0.5,
      repetitionPenalty: 1.2,
      seed: 42,
      stop: ['END'],
      stopTokenIds: [3],
      includeStopStrInOutput: true,
      ignoreEos: true,
      logitBias: { 5: 100 },
      allowedTokenIds: [97, 98],
      badWords: ['no'],
      skipSpecialTokens: false,
      outputKind: 'final',
      detokenize: true,
    });
  });

  it('treats null as absent', async () => {
    const { app } = await start();
    const answer = await complete(app, {
      prompt: 'x',
      max_tokens: null,
      stop: null,
      tools: null,
      best_of: null,
    });
    expect(answer.usage.completion_tokens).toBe(16);
  });

  it('echoes the prompt, with its logprobs, and nothing generated for max_tokens 0', async () => {
    const { app } = await start();
    const answer = await complete(app, {
      prompt: 'hey',
      echo: true,
      max_tokens: 0,
      logprobs: 1,
      add_special_tokens: false,
    });
    const [choice] = answer.choices;
    expect(choice).toMatchObject({ text: 'hey', finish_reason: 'length' });
    expect(choice?.logprobs).toEqual({
      tokens: ['h', 'e', 'y'],
      token_logprobs: [null, -0.5, -0.5],
      top_logprobs: [null, { e: -0.5 }, { y: -0.5 }],
      text_offset: [0, 1, 2],
    });
    expect(answer.usage.completion_tokens).toBe(0);
    const longer = await complete(app, { prompt: [104, 105], echo: true, max_tokens: 2, logprobs: 0 });
    expect(longer.choices[0]?.text).toBe(`hi${scriptedText([104, 105], 0, 2)}`);
    expect(longer.choices[0]?.logprobs?.token_logprobs).toEqual([null, -0.5, -0.5, -0.5]);
  });

  it('formats logprobs and floors them', async () => {
    const { app } = await start();
    const answer = await complete(app, { prompt: 'hello', max_tokens: 2, logprobs: 3 });
    const [first = 0, second = 0] = scriptedTokens(hello, 0, 2);
    expect(answer.choices[0]?.logprobs).toEqual({
      tokens: [String.fromCodePoint(first), String.fromCodePoint(second)],
      token_logprobs: [-0.5, -0.5],
      top_logprobs: [
        { [String.fromCodePoint(first)]: -0.5, A: -1.5, B: -9999 },
        { [String.fromCodePoint(second)]: -0.5, A: -1.5, B: -9999 },
      ],
      text_offset: [0, 1],
    });
  });

  it('returns token ids, tokens as ids, and prompt logprobs', async () => {
    const { app } = await start();
    const answer = await complete(app, {
      prompt: 'hi',
      max_tokens: 1,
      logprobs: 0,
      prompt_logprobs: 1,
      return_token_ids: true,
      return_tokens_as_token_ids: true,
    });
    const prompt = [bos, 104, 105];
    const [token = 0] = scriptedTokens(prompt, 0, 1);
    expect(answer.choices[0]).toMatchObject({
      token_ids: [token],
      prompt_token_ids: prompt,
      prompt_logprobs: [
        null,
        { 104: { logprob: -0.5, rank: 1, decoded_token: 'h' } },
        { 105: { logprob: -0.5, rank: 1, decoded_token: 'i' } },
      ],
      logprobs: { tokens: [`token_id:${token}`], top_logprobs: [{ [`token_id:${token}`]: -0.5 }] },
    });
  });

  it('truncates prompts from either side', async () => {
    const { app, engine } = await start();
    await complete(app, { prompt: 'hello', truncate_prompt_tokens: 2 });
    await complete(app, { prompt: 'hello', truncate_prompt_tokens: 2, truncation_side: 'right' });
    await complete(app, { prompt: 'x'.repeat(400), truncate_prompt_tokens: -1, max_tokens: 6 });
    expect(engine.requests.map(({ prompt }) => ('tokenIds' in prompt ? prompt.tokenIds : []))).toEqual([
      [108, 111],
      [bos, 104],
      Array.from({ length: 250 }, () => 120),
    ]);
  });

  it('adds timings with --enable-per-request-metrics', async () => {
    const { app } = await start({}, { enablePerRequestMetrics: true });
    const answer = await complete(app, { prompt: 'x', max_tokens: 3 });
    expect(answer).toHaveProperty('metrics.time_to_first_token_ms', expect.closeTo(2));
    expect(answer).toHaveProperty('metrics.mean_itl_ms', expect.closeTo(1));
  });
});

describe('POST /v1/completions with stream', () => {
  it('sends a chunk per token, the finish once, then [DONE]', async () => {
    const { app } = await start();
    const { chunks, isDone } = await stream(app, { prompt: 'hello', max_tokens: 4 });
    expect(isDone).toBe(true);
    expect(chunks.map((chunk) => chunk.choices[0]?.text).join('')).toBe(scriptedText(hello, 0, 4));
    expect(chunks.map((chunk) => chunk.choices[0]?.finish_reason)).toEqual([null, null, null, 'length']);
    expect(new Set(chunks.map((chunk) => `${chunk.id} ${chunk.created} ${chunk.object}`)).size).toBe(1);
    expect(chunks[0]).toMatchObject({
      object: 'text_completion',
      id: expect.stringMatching(/^cmpl-/) as string,
    });
    expect(chunks[0]).not.toHaveProperty('system_fingerprint');
    expect(chunks.at(-1)).toHaveProperty('system_fingerprint');
    expect(chunks[0]).not.toHaveProperty('usage');
  });

  it('streams several prompts and choices side by side', async () => {
    const { app } = await start();
    const { chunks } = await stream(app, { prompt: ['a', 'b'], n: 2, max_tokens: 3 });
    const texts = ['', '', '', ''];
    for (const { choices } of chunks)
      for (const { index, text } of choices) texts[index] = `${texts[index]}${text}`;
    expect(texts).toEqual([
      scriptedText([bos, 97], 0, 3),
      scriptedText([bos, 97], 1, 3),
      scriptedText([bos, 98], 0, 3),
      scriptedText([bos, 98], 1, 3),
    ]);
    expect(chunks.filter(({ choices }) => choices[0]?.finish_reason === 'length')).toHaveLength(4);
  });

  it('adds usage at the end, or on every chunk, as stream_options says', async () => {
    const { app } = await start({ numCachedTokens: 2 });
    const end = await stream(app, {
      prompt: 'hello',
      max_tokens: 2,
      stream_options: { include_usage: true },
    });
    expect(end.chunks).toHaveLength(3);
    expect(end.chunks.at(-1)).toMatchObject({
      choices: [],
      usage: {
        prompt_tokens: 6,
        completion_tokens: 2,
        total_tokens: 8,
        prompt_tokens_details: { cached_tokens: 2 },
      },
    });
    const every = await stream(app, {
      prompt: 'hello',
      max_tokens: 2,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    });
    expect(every.chunks.map((chunk) => chunk.usage?.completion_tokens)).toEqual([1, 2, 2]);
  });

  it('forces usage with --enable-force-include-usage', async () => {
    const { app } = await start({}, { enableForceIncludeUsage: true });
    const { chunks } = await stream(app, { prompt: 'hello', max_tokens: 2 });
    expect(chunks.map((chunk) => chunk.usage?.total_tokens)).toEqual([7, 8, 8]);
  });

  it('echoes the prompt in the first chunk, with running text offsets', async () => {
    const { app } = await start();
    const { chunks } = await stream(app, {
      prompt: [104, 105],
      echo: true,
      max_tokens: 2,
      logprobs: 0,
      return_token_ids: true,
    });
    expect(chunks[0]?.choices[0]?.text).toBe(`hi${scriptedText([104, 105], 0, 1)}`);
    expect(chunks.map((chunk) => chunk.choices[0]?.logprobs?.['text_offset'])).toEqual([[0, 1, 2], [3]]);
    expect(chunks.map((chunk) => chunk.choices[0]?.prompt_token_ids)).toEqual([[104, 105], undefined]);
    expect(chunks.map((chunk) => chunk.choices[0]?.token_ids)).toEqual([
      scriptedTokens([104, 105], 0, 1),
      scriptedTokens([104, 105], 0, 2).slice(1),
    ]);
  });

  it('sends no empty chunks while text is held back', async () => {
    const [held = 0] = scriptedTokens(hello, 0, 1);
    const { app } = await start({ heldBackTokens: [held] });
    const { chunks } = await stream(app, { prompt: 'hello', max_tokens: 3 });
    expect(chunks.map((chunk) => chunk.choices[0]?.text)).not.toContain('');
    const withIds = await stream(app, { prompt: 'hello', max_tokens: 3, return_token_ids: true });
    expect(withIds.chunks.flatMap((chunk) => chunk.choices[0]?.token_ids)).toEqual(
      scriptedTokens(hello, 0, 3),
    );
  });

  it('gathers tokens by stream_interval; the first and the last go out at once', async () => {
    const { app } = await start();
    const { chunks } = await stream(app, { prompt: 'hello', max_tokens: 6, stream_interval: 3 });
    expect(chunks.map((chunk) => chunk.choices[0]?.text?.length)).toEqual([1, 3, 2]);
    expect(chunks.map((chunk) => chunk.choices[0]?.text).join('')).toBe(scriptedText(hello, 0, 6));
  });

  it('answers a failure before the first token with its status, a later one with an error event', async () => {
    const early = await start({ failAfterTokens: 0 });
    const response = await early.app.inject({
      method: 'POST',
      url: '/v1/completions',
      payload: { prompt: 'x', stream: true },
    });
    expect(response.statusCode).toBe(500);
    expect(response.json()).toMatchObject({
      error: { message: 'boom', tenon_code: 'backend.step-failed', code: 500 },
    });
    const late = await start({ failAfterTokens: 2 });
    const { chunks, isDone } = await stream(late.app, { prompt: ['x', 'y'] });
    expect(isDone).toBe(true);
    expect(chunks.at(-1)?.error).toMatchObject({ message: 'boom', code: 500, type: 'InternalServerError' });
  });
});

describe('--skip-tokenizer-init', () => {
  const script: Script = { tokenizer: undefined };

  it('serves token ids, without text', async () => {
    const { app, engine } = await start(script);
    const answer = await complete(app, { prompt: [104], max_tokens: 2, return_token_ids: true, logprobs: 1 });
    expect(answer.choices[0]).toMatchObject({ text: '', token_ids: scriptedTokens([104], 0, 2) });
    expect(answer.choices[0]?.logprobs?.tokens[0]).toBe(`token_id:${scriptedTokens([104], 0, 1)[0]}`);
    expect(engine.requests[0]?.params.detokenize).toBe(false);
    const streamed = await stream(app, { prompt: [104], max_tokens: 2, return_token_ids: true });
    expect(streamed.chunks.flatMap((chunk) => chunk.choices[0]?.token_ids)).toEqual(
      scriptedTokens([104], 0, 2),
    );
  });

  it.each([
    ['/v1/completions', { prompt: 'text' }, 'prompt'],
    ['/v1/completions', { prompt: [1], stop: 'x' }, 'stop'],
    ['/v1/completions', { prompt: [1], bad_words: ['x'] }, 'bad_words'],
    ['/v1/chat/completions', { messages: [{ role: 'user', content: 'hi' }] }, 'messages'],
    ['/tokenize', { prompt: 'hi' }, null],
    ['/detokenize', { tokens: [1] }, null],
  ])('%s refuses %j', async (url, payload, param) => {
    const { app } = await start(script);
    const response = await app.inject({ method: 'POST', url, payload });
    expect(response.statusCode).toBe(400);
    expect(response.json()).toMatchObject({ error: { tenon_code: 'request.no-tokenizer', param } });
  });
});

describe('/tokenize and /detokenize', () => {
  it('gives tokens of texts and of conversations, and texts of tokens', async () => {
    const { app } = await start({ tokenizer: new ByteTokenizer() });
    const tokenize = async (payload: object): Promise<unknown> =>
      (await app.inject({ method: 'POST', url: '/tokenize', payload })).json();
    expect(await tokenize({ prompt: 'hi' })).toEqual({
      count: 3,
      max_model_len: 256,
      tokens: [bos, 104, 105],
      token_strs: null,
    });
    expect(
      await tokenize({ prompt: 'hi', add_special_tokens: false, return_token_strs: true }),
    ).toMatchObject({
      tokens: [104, 105],
      token_strs: ['h', 'i'],
    });
    const chat = await tokenize({ messages: [{ role: 'user', content: 'q' }] });
    expect(chat).toMatchObject({ tokens: [...Buffer.from('user:q;assistant:')] });
    expect(await tokenize({})).toMatchObject({ error: { code: 400 } });
    const text = await app.inject({ method: 'POST', url: '/detokenize', payload: { tokens: [104, 105] } });
    expect(text.json()).toEqual({ prompt: 'hi' });
    const outside = await app.inject({ method: 'POST', url: '/detokenize', payload: { tokens: [999] } });
    expect(outside.json()).toMatchObject({
      error: { tenon_code: 'request.token-out-of-vocabulary', param: 'tokens' },
    });
  });
});
