import type { FastifyInstance } from 'fastify';
import { describe, expect, it } from 'vitest';

import { createApp } from '../../src/server/app.js';
import {
  ByteTokenizer,
  type Script,
  ScriptedEngine,
  scriptedText,
  scriptedTokens,
} from './scripted-engine.js';
import { parseSse } from './sse.js';

const question = [{ role: 'user', content: 'why' }];
const prompt = [...Buffer.from('user:why;assistant:')];

async function start(
  script: Script = {},
  options = {},
): Promise<{ app: FastifyInstance; engine: ScriptedEngine; tokenizer: ByteTokenizer }> {
  const tokenizer = new ByteTokenizer();
  const engine = new ScriptedEngine({ tokenizer, ...script });
  return { tokenizer, engine, app: await createApp({ engine, options: { disableDocs: true, ...options } }) };
}

interface Answer {
  id: string;
  choices: {
    message: { role: string; content: string };
    logprobs: { content: { top_logprobs: object[] }[] } | null;
  }[];
  prompt_text?: string;
}

async function chat(app: FastifyInstance, payload: object): Promise<Answer> {
  const response = await app.inject({ method: 'POST', url: '/v1/chat/completions', payload });
  expect(response.statusCode, response.body).toBe(200);
  return response.json<Answer>();
}

async function refusal(app: FastifyInstance, payload: object): Promise<unknown> {
  const response = await app.inject({ method: 'POST', url: '/v1/chat/completions', payload });
  expect(response.statusCode).toBe(400);
  return response.json<{ error: unknown }>().error;
}

async function stream(app: FastifyInstance, payload: object): Promise<ReturnType<typeof parseSse>> {
  const response = await app.inject({
    method: 'POST',
    url: '/v1/chat/completions',
    payload: { ...payload, stream: true },
  });
  expect(response.statusCode, response.body).toBe(200);
  return parseSse(response.body);
}

describe('POST /v1/chat/completions', () => {
  it('answers through the chat template, without special tokens', async () => {
    const { app, engine } = await start();
    const answer = await chat(app, { messages: question, max_tokens: 5, request_id: 'abc' });
    expect(answer).toMatchObject({
      id: 'chatcmpl-abc',
      object: 'chat.completion',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: scriptedText(prompt, 0, 5) },
          logprobs: null,
          finish_reason: 'length',
          stop_reason: null,
        },
      ],
      usage: { prompt_tokens: prompt.length, completion_tokens: 5, total_tokens: prompt.length + 5 },
    });
    expect(engine.requests[0]).toMatchObject({ addSpecialTokens: false, params: { outputKind: 'final' } });
  });

  it('lets max_completion_tokens win, and asks for all that fits without either', async () => {
    const { app, engine } = await start();
    await chat(app, { messages: question, max_tokens: 5, max_completion_tokens: 3 });
    await chat(app, { messages: question });
    expect(engine.requests.map((request) => request.params.maxTokens)).toEqual([3, undefined]);
  });

  it('gives the most likely tokens as top_logprobs, best first', async () => {
    const { app } = await start();
    const answer = await chat(app, { messages: question, max_tokens: 1, logprobs: true, top_logprobs: 2 });
    const [id = 0] = scriptedTokens(prompt, 0, 1);
    const own = { token: String.fromCodePoint(id), logprob: -0.5, bytes: [id] };
    expect(answer.choices[0]?.logprobs).toEqual({
      content: [{ ...own, top_logprobs: [own, { token: 'A', logprob: -1.5, bytes: [65] }] }],
    });
    const plain = await chat(app, { messages: question, max_tokens: 1, logprobs: true });
    expect(plain.choices[0]?.logprobs?.content[0]?.top_logprobs).toEqual([]);
  });

  it('joins text parts, and passes tool calls and further fields to the template', async () => {
    const { app, tokenizer } = await start();
    await chat(app, {
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
          name: 'me',
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: '1', function: { name: 'f', arguments: '{"x":1}' } }],
        },
        { role: 'tool', content: 'r', tool_call_id: '1' },
      ],
      max_tokens: 1,
    });
    expect(tokenizer.lastMessages).toMatchObject([
      { content: 'a\nb', name: 'me' },
      { content: '', tool_calls: [{ function: { name: 'f', arguments: { x: 1 } } }] },
      { role: 'tool', tool_call_id: '1' },
    ]);
  });

  it('keeps content parts for templates that walk over them', async () => {
    const template =
      "{% for m in messages %}{% for part in m['content'] %}{{ part.text }}{% endfor %}{% endfor %}";
    const { app, tokenizer } = await start({}, { chatTemplate: template });
    await chat(app, { messages: question, max_tokens: 1 });
    expect(tokenizer.lastMessages[0]?.content).toEqual([{ type: 'text', text: 'why' }]);
    expect(tokenizer.lastTemplateOptions?.chatTemplate).toBe(template);
  });

  it('hands the template its variables', async () => {
    const { app, tokenizer } = await start({}, { trustRequestChatTemplate: true });
    await chat(app, {
      messages: question,
      max_tokens: 1,
      chat_template: 'T',
      chat_template_kwargs: { mood: 'calm' },
      documents: [{ title: 't' }],
      reasoning_effort: 'none',
      add_generation_prompt: false,
    });
    expect(tokenizer.lastTemplateOptions).toEqual({
      chatTemplate: 'T',
      addGenerationPrompt: false,
      continueFinalMessage: false,
      documents: [{ title: 't' }],
      kwargs: { mood: 'calm', reasoning_effort: 'none', enable_thinking: false },
    });
  });

  it('continues the final message under its role, and echoes it', async () => {
    const { app, tokenizer } = await start();
    const messages = [...question, { role: 'bard', content: 'Once' }];
    const answer = await chat(app, { messages, continue_final_message: true, echo: true, max_tokens: 2 });
    expect(answer.choices[0]?.message.role).toBe('bard');
    expect(answer.choices[0]?.message.content).toMatch(/^Once../);
    expect(tokenizer.lastTemplateOptions).toMatchObject({
      continueFinalMessage: true,
      addGenerationPrompt: false,
    });
  });

  it('returns the prompt as text and ids', async () => {
    const { app } = await start();
    const answer = await chat(app, {
      messages: question,
      max_tokens: 1,
      return_prompt_text: true,
      return_token_ids: true,
      prompt_logprobs: 0,
    });
    expect(answer).toMatchObject({ prompt_text: 'user:why;assistant:', prompt_token_ids: prompt });
    expect(answer).toHaveProperty('prompt_logprobs.length', prompt.length);
  });

  it.each([
    [{ top_logprobs: 2 }, 'top_logprobs'],
    [{ logprobs: true, top_logprobs: 21 }, 'top_logprobs'],
    [{ chat_template: 'x' }, 'chat_template'],
    [{ add_generation_prompt: true, continue_final_message: true }, 'continue_final_message'],
    [{ max_tokens: 0 }, 'max_tokens'],
    [{ stream: true, prompt_logprobs: 1 }, 'prompt_logprobs'],
    [{ stream_options: { include_usage: true } }, 'stream_options'],
    [{ priority: 3 }, 'priority'],
    [{ messages: [] }, 'messages'],
    [{ messages: [{ content: 'x' }] }, 'messages.0.role'],
    [
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
      'messages.0.content.0.type',
    ],
    [{ messages: [{ role: 'user', content: 5 }] }, 'messages.0.content'],
    [
      { messages: [{ role: 'assistant', tool_calls: [{ function: { arguments: '{' } }] }] },
      'messages.0.tool_calls.0.function.arguments',
    ],
  ])('refuses %j, naming %s', async (fields, param) => {
    const { app, engine } = await start();
    expect(await refusal(app, { messages: question, ...fields })).toMatchObject({
      param,
      code: 400,
      message: expect.stringContaining(param.split('.')[0] ?? '') as string,
    });
    expect(engine.requests).toEqual([]);
  });

  it('answers a broken template with its message', async () => {
    const { app } = await start({}, { trustRequestChatTemplate: true });
    const error = await refusal(app, { messages: question, chat_template: '{% raise %}' });
    expect(error).toMatchObject({
      tenon_code: 'request.chat-template',
      message: 'the chat template failed: raised',
    });
  });
});

describe('POST /v1/chat/completions with stream', () => {
  it('opens each choice with its role, then content, the finish once, then [DONE]', async () => {
    const { app } = await start();
    const { chunks, isDone } = await stream(app, { messages: question, max_tokens: 3, n: 2 });
    expect(isDone).toBe(true);
    expect(chunks.slice(0, 2).map((chunk) => chunk.choices)).toEqual([
      [{ index: 0, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }],
      [{ index: 1, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }],
    ]);
    for (const index of [0, 1]) {
      const own = chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === index);
      expect(own.map((choice) => choice.delta?.content).join('')).toBe(scriptedText(prompt, index, 3));
      expect(own.map((choice) => choice.finish_reason)).toEqual([null, null, null, 'length']);
      expect(own.at(-1)).toHaveProperty('stop_reason', null);
    }
    expect(chunks[0]?.object).toBe('chat.completion.chunk');
    expect(chunks.at(-1)?.system_fingerprint).toMatch(/^tenon-/);
  });

  it('tells prompt ids and text in the opening chunk only, and token ids in each', async () => {
    const { app } = await start();
    const { chunks } = await stream(app, {
      messages: question,
      max_tokens: 2,
      return_token_ids: true,
      return_prompt_text: true,
    });
    expect(chunks.map((chunk) => chunk.prompt_token_ids)).toEqual([prompt, undefined, undefined]);
    expect(chunks.map((chunk) => chunk.prompt_text)).toEqual(['user:why;assistant:', undefined, undefined]);
    expect(chunks.flatMap((chunk) => chunk.choices[0]?.token_ids ?? [])).toEqual(
      scriptedTokens(prompt, 0, 2),
    );
  });

  it('streams logprobs, echo and usage', async () => {
    const { app } = await start();
    const { chunks } = await stream(app, {
      messages: [{ role: 'assistant', content: 'So' }],
      echo: true,
      logprobs: true,
      max_tokens: 2,
      stream_options: { include_usage: true },
    });
    expect(chunks[1]?.choices[0]?.delta?.content).toBe('So');
    expect(chunks[2]?.choices[0]?.logprobs?.['content']).toHaveLength(1);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 2 } });
  });

  it('sends text that JSON must escape', async () => {
    const { app } = await start({ info: { modelName: 'a"b\n' } });
    const { chunks } = await stream(app, { messages: question, max_tokens: 1 });
    expect(chunks[0]?.model).toBe('a"b\n');
  });
});
