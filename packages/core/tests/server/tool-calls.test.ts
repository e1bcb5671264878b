/** Tool calls as clients of OpenAI's API see them: the openai client on a server whose engine says what a test makes it say. */
import { join } from 'node:path';

import type { FastifyInstance } from 'fastify';
import OpenAI from 'openai';
import type { ChatCompletionChunk, ChatCompletionTool } from 'openai/resources/chat/completions';
import { afterEach, describe, expect, it } from 'vitest';

import type { ToolParserExtension } from '../../src/extensions/tool-parser.js';
import { createApp } from '../../src/server/app.js';
import { listen } from '../../src/server/listen.js';
import type { ServerOptions } from '../../src/server/server-options.js';
import { loadToolParser, type NamedToolParser } from '../../src/server/tool-calls/tool-parsers.js';
import { ByteTokenizer, ScriptedEngine } from './scripted-engine.js';

const examples = join(import.meta.dirname, '../../../../plugins-template/examples');
const parameters = { type: 'object', properties: { city: { type: 'string' } } };
const tools: ChatCompletionTool[] = [
  { type: 'function', function: { name: 'weather', description: 'The weather of a city', parameters } },
];
const messages = [{ role: 'user' as const, content: 'Oslo?' }];
const question = { model: 'scripted', messages, tools };
const oslo = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>';
const answer = `I look.\n${oslo}\n${oslo.replace('Oslo', 'Bergen')}`;

let app: FastifyInstance | undefined;
afterEach(async () => {
  await app?.close();
  app = undefined;
});

interface Started {
  readonly client: OpenAI;
  readonly engine: ScriptedEngine;
  readonly tokenizer: ByteTokenizer;
}

async function start(
  says: string | ((prompt: string) => string) = answer,
  parser: string | NamedToolParser | null = 'hermes',
  options: Partial<ServerOptions> = {},
): Promise<Started> {
  const tokenizer = new ByteTokenizer();
  const engine = new ScriptedEngine({
    tokenizer,
    answer: typeof says === 'string' ? () => says : says,
    info: { maxModelLen: 1024 },
  });
  const search = { plugins: [join(examples, 'tool-parser-example')], root: import.meta.dirname };
  const toolParser =
    typeof parser === 'string' ? await loadToolParser(parser, search) : (parser ?? undefined);
  app = await createApp({
    engine,
    toolParser,
    options: { enableAutoToolChoice: true, disableDocs: true, ...options },
  });
  const url = await listen(app, { host: '127.0.0.1', port: 0 });
  return { tokenizer, engine, client: new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 }) };
}

const aCall = (json: string) => ({
  id: expect.stringMatching(/^chatcmpl-tool-[0-9a-f]{32}$/) as string,
  type: 'function',
  function: { name: 'weather', arguments: json },
});

async function chunksOf(client: OpenAI, fields: object = {}): Promise<ChatCompletionChunk[]> {
  const chunks: ChatCompletionChunk[] = [];
  const body = { ...question, ...fields, stream: true } as const;
  for await (const chunk of await client.chat.completions.create(body)) chunks.push(chunk);
  return chunks;
}

describe('answers with tool calls', () => {
  it('have the calls beside the text, and say that they ended with them', async () => {
    const { client, engine, tokenizer } = await start();
    const { choices } = await client.chat.completions.create(question);
    expect(choices).toMatchObject([
      {
        finish_reason: 'tool_calls',
        message: {
          role: 'assistant',
          content: 'I look.',
          tool_calls: [aCall('{"city": "Oslo"}'), aCall('{"city": "Bergen"}')],
        },
      },
    ]);
    expect(tokenizer.lastTemplateOptions?.tools).toEqual(tools);
    expect(engine.requests[0]?.params.skipSpecialTokens).toBe(false);
  });

  it('have null as content where there is nothing else, and no calls where none are made', async () => {
    const calling = await start(oslo);
    const [called] = (await calling.client.chat.completions.create(question)).choices;
    expect(called?.message.content).toBeNull();
    await app?.close();
    const telling = await start('It rains.');
    const [told] = (await telling.client.chat.completions.create(question)).choices;
    expect(told).toMatchObject({ finish_reason: 'stop', message: { content: 'It rains.' } });
    expect(told?.message).not.toHaveProperty('tool_calls');
  });

  it('stream: id and name of a call first, then its arguments in parts; the client puts them together', async () => {
    const { client } = await start();
    const chunks = await chunksOf(client);
    const deltas = chunks.map(({ choices }) => choices[0]!.delta);
    const calls = deltas.flatMap(({ tool_calls: found }) => found ?? []);
    const [first] = calls;
    expect(first).toEqual({ ...aCall(''), index: 0 });
    const more = calls.filter(({ index }) => index === 0).slice(1);
    expect(more.length).toBeGreaterThan(5);
    for (const part of more) expect(Object.keys(part)).toEqual(['index', 'function']);
    expect(more.map((part) => part.function?.arguments).join('')).toBe('{"city": "Oslo"}');
    expect(new Set(calls.map(({ id }) => id))).toHaveProperty('size', 3);
    expect(deltas.map(({ content }) => content ?? '').join('')).toBe('I look.');
    expect(chunks.map(({ choices }) => choices[0]?.finish_reason).filter(Boolean)).toEqual(['tool_calls']);
    const final = await client.chat.completions.stream(question).finalChatCompletion();
    const whole = await client.chat.completions.create(question);
    expect(final.choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: {
        content: whole.choices[0]!.message.content,
        tool_calls: [aCall('{"city": "Oslo"}'), aCall('{"city": "Bergen"}')],
      },
    });
  });

  it('go back to the model with the results: a whole conversation by the client', async () => {
    const { client, tokenizer } = await start((prompt) =>
      prompt.includes('tool:') ? 'Rain in Oslo.' : oslo,
    );
    const asked: unknown[] = [];
    const runner = client.chat.completions.runTools({
      model: 'scripted',
      messages,
      tools: [
        {
          type: 'function',
          function: {
            name: 'weather',
            description: 'The weather of a city',
            parameters,
            parse: JSON.parse as (json: string) => object,
            function: (args: object) => {
              asked.push(args);
              return 'rain';
            },
          },
        },
      ],
    });
    expect(await runner.finalContent()).toBe('Rain in Oslo.');
    expect(asked).toEqual([{ city: 'Oslo' }]);
    expect(tokenizer.lastMessages).toMatchObject([
      { role: 'user' },
      { role: 'assistant', tool_calls: [{ function: { name: 'weather', arguments: { city: 'Oslo' } } }] },
      { role: 'tool', content: 'rain', tool_call_id: expect.stringMatching(/^chatcmpl-tool-/) as string },
    ]);
    expect(tokenizer.lastMessages[0]).not.toHaveProperty('tool_calls');
  });

  it('are told apart by choice, and every token and logprob is told once', async () => {
    const { client } = await start(oslo);
    const fields = { n: 2, temperature: 1, logprobs: true, return_token_ids: true };
    const choices = (await chunksOf(client, fields)).flatMap((chunk) => chunk.choices);
    for (const index of [0, 1]) {
      const own = choices.filter((choice) => choice.index === index);
      const json = own.flatMap(({ delta }) => delta.tool_calls ?? []).map((part) => part.function?.arguments);
      expect(json.join('')).toBe('{"city": "Oslo"}');
      const tokens = own.flatMap((choice) => (choice as { token_ids?: number[] }).token_ids ?? []);
      expect(Buffer.from(tokens).toString()).toBe(oslo);
      expect(own.flatMap(({ logprobs }) => logprobs?.content ?? [])).toHaveLength(oslo.length);
    }
  });

  it('say that they were cut off', async () => {
    const { client } = await start(oslo);
    const fields = { max_tokens: oslo.length - 15 };
    const [choice] = (await client.chat.completions.create({ ...question, ...fields })).choices;
    expect(choice).toMatchObject({
      finish_reason: 'length',
      message: { tool_calls: [aCall('{"city": "Oslo')] },
    });
    expect((await chunksOf(client, fields)).at(-1)?.choices[0]?.finish_reason).toBe('length');
  });

  it('have one call at most without parallel_tool_calls', async () => {
    const { client } = await start();
    const fields = { parallel_tool_calls: false };
    const [choice] = (await client.chat.completions.create({ ...question, ...fields })).choices;
    expect(choice?.message).toMatchObject({ content: 'I look.', tool_calls: [aCall('{"city": "Oslo"}')] });
    const parts = (await chunksOf(client, fields)).flatMap(
      ({ choices }) => choices[0]?.delta.tool_calls ?? [],
    );
    expect(new Set(parts.map(({ index }) => index))).toEqual(new Set([0]));
  });

  it('stay text where no tool may be called, with the tools in the prompt unless they are excluded', async () => {
    const plain = { ...question, tool_choice: 'none' } as const;
    for (const excludeToolsWhenToolChoiceNone of [false, true]) {
      const { client, tokenizer, engine } = await start(answer, null, {
        enableAutoToolChoice: false,
        excludeToolsWhenToolChoiceNone,
      });
      const [choice] = (await client.chat.completions.create(plain)).choices;
      expect(choice).toMatchObject({ finish_reason: 'stop', message: { content: answer } });
      expect(tokenizer.lastTemplateOptions?.tools).toEqual(
        excludeToolsWhenToolChoiceNone ? undefined : tools,
      );
      expect(engine.requests[0]?.params.skipSpecialTokens).toBe(true);
      await app?.close();
    }
  });

  it('have their tools in the prompts that /tokenize shows, too', async () => {
    const { tokenizer } = await start();
    const response = await app!.inject({ method: 'POST', url: '/tokenize', payload: { messages, tools } });
    expect(response.statusCode).toBe(200);
    expect(tokenizer.lastTemplateOptions?.tools).toEqual(tools);
  });

  it('need a server that was started for them', async () => {
    for (const [parser, enableAutoToolChoice] of [
      [null, true],
      ['hermes', false],
    ] as const) {
      const { client, engine } = await start(answer, parser, { enableAutoToolChoice });
      const refusal = (param: string) => ({
        status: 400,
        param,
        message: expect.stringContaining('--enable-auto-tool-choice and --tool-call-parser') as string,
      });
      await expect(client.chat.completions.create(question)).rejects.toMatchObject(refusal('tools'));
      const asked = { ...question, tool_choice: 'auto' } as const;
      await expect(client.chat.completions.create(asked)).rejects.toMatchObject(refusal('tool_choice'));
      expect(engine.requests).toEqual([]);
      await app?.close();
    }
  });
});

describe('the tool parser of a plugin', () => {
  it('reads the answers, whole and streamed', async () => {
    const { client, engine } = await start('I look.\ncall weather {"city": "Oslo"}\nWait.', 'call-lines');
    const expected = {
      finish_reason: 'tool_calls',
      message: { content: 'I look.\nWait.', tool_calls: [aCall('{"city": "Oslo"}')] },
    };
    const [choice] = (await client.chat.completions.create(question)).choices;
    expect(choice).toMatchObject(expected);
    const final = await client.chat.completions.stream(question).finalChatCompletion();
    expect(final.choices[0]).toMatchObject(expected);
    expect(engine.requests[0]?.params.skipSpecialTokens).toBe(true);
  });

  const broken = (push: () => unknown): NamedToolParser => ({
    name: 'broken',
    extension: { create: () => ({ push, finish: () => [] }) } as ToolParserExtension,
  });

  it.each<[string, () => unknown, string]>([
    [
      'throws',
      () => {
        throw new Error('no');
      },
      "tool parser 'broken' failed: no",
    ],
    ['answers no list', () => 'x', `tool parser 'broken' answered "x"; expected a list`],
    [
      'answers a wrong delta',
      () => [{ type: 'call' }],
      `tool parser 'broken' answered {"type":"call"}; expected content`,
    ],
    ['begins with arguments', () => [{ type: 'arguments', json: '{' }], "tool parser 'broken' answered"],
  ])('fails the request alone where it %s', async (_, push, message) => {
    const { client, engine } = await start(answer, broken(push));
    await expect(client.chat.completions.create(question)).rejects.toMatchObject({
      status: 500,
      error: { tenon_code: 'internal.extension-failed', message: expect.stringContaining(message) as string },
    });
    await expect(chunksOf(client)).rejects.toThrow(message);
    const [choice] = (await client.chat.completions.create({ ...question, tool_choice: 'none' })).choices;
    expect(choice?.message.content).toBe(answer);
    expect(engine.stats().numRunning).toBe(0);
  });
});
