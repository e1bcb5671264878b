/** What needs real sockets: clients that leave or read slowly, shutting down, and the openai client. */
import { connect, type Socket } from 'node:net';

import type { FastifyInstance } from 'fastify';
import OpenAI, { APIError, AuthenticationError, BadRequestError, NotFoundError } from 'openai';
import { afterEach, describe, expect, it } from 'vitest';

import { createApp } from '../../src/server/app.js';
import { listen } from '../../src/server/listen.js';
import { shutDown } from '../../src/server/shutdown.js';
import { type Script, ScriptedEngine, scriptedText } from './scripted-engine.js';
import { parseSse } from './sse.js';

const apps: FastifyInstance[] = [];

afterEach(async () => {
  for (const app of apps.splice(0)) {
    app.server.closeAllConnections();
    await app.close();
  }
});

async function serve(
  script: Script = {},
  options = {},
): Promise<{ app: FastifyInstance; engine: ScriptedEngine; url: string; port: number }> {
  const engine = new ScriptedEngine(script);
  const app = await createApp({ engine, options: { disableDocs: true, ...options } });
  apps.push(app);
  const url = await listen(app, { host: '127.0.0.1', port: 0 });
  return { app, engine, url, port: Number(new URL(url).port) };
}

function post(url: string, path: string, body: object, signal?: AbortSignal): Promise<Response> {
  return fetch(`${url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal,
  });
}

describe('a client that leaves', () => {
  it.each([true, false])('aborts its request (stream: %s)', async (stream) => {
    const { engine, url } = await serve({ tokenDelayMs: 10 });
    const controller = new AbortController();
    const answer = post(
      url,
      '/v1/completions',
      { prompt: ['a', 'b'], max_tokens: 200, stream },
      controller.signal,
    ).then((response) => response.text());
    await expect.poll(() => engine.stats().numRunning).toBe(2);
    controller.abort();
    await expect(answer).rejects.toThrow('aborted');
    await expect.poll(() => engine.aborted.length).toBe(2);
    expect(engine.stats().numRunning).toBe(0);
  });

  it('leaves others alone', async () => {
    const { engine, url } = await serve({ tokenDelayMs: 5 });
    const controller = new AbortController();
    const leaving = post(
      url,
      '/v1/completions',
      { prompt: 'a', max_tokens: 100, stream: true },
      controller.signal,
    );
    const staying = post(url, '/v1/completions', { prompt: 'b', max_tokens: 20 });
    await leaving;
    controller.abort();
    expect((await (await staying).json()) as object).toMatchObject({ usage: { completion_tokens: 20 } });
    await expect.poll(() => engine.aborted.length).toBe(1);
  });
});

describe('a client that reads slowly', () => {
  it('holds the engine back, and gets everything in the end', async () => {
    const maxTokens = 40_000;
    const { engine, port } = await serve({ info: { maxModelLen: 100_000 } });
    let numSteps = 0;
    engine.onStep(() => (numSteps += 1));
    const body = JSON.stringify({ prompt: 'x', max_tokens: maxTokens, stream: true });
    const socket = connect(port, '127.0.0.1');
    socket.pause();
    socket.write(
      `POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    await expect.poll(() => engine.stats().numRunning).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const numStepsHeld = numSteps;
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(numSteps).toBe(numStepsHeld);
    expect(numSteps).toBeLessThan(maxTokens);
    const text = await readAll(socket);
    expect(text.match(/"text":"[a-z]"/g)).toHaveLength(maxTokens);
    expect(text).toContain('data: [DONE]');
    expect(engine.stats().numRunning).toBe(0);
  });
});

async function readAll(socket: Socket): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of socket) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}

describe('shutting down', () => {
  it('lets running requests finish, with health red and new work refused', async () => {
    const { app, engine, url } = await serve({ tokenDelayMs: 10 });
    const running = post(url, '/v1/completions', { prompt: 'x', max_tokens: 20, stream: true }).then((r) =>
      r.text(),
    );
    await expect.poll(() => engine.stats().numRunning).toBe(1);
    const down = shutDown(app, 5000);
    const health = await fetch(`${url}/health`);
    expect(health.status).toBe(503);
    const refused = await post(url, '/v1/completions', { prompt: 'y' });
    expect(refused.status).toBe(503);
    expect(refused.headers.get('retry-after')).toBe('1');
    const { chunks, isDone } = parseSse(await running);
    expect(isDone).toBe(true);
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('length');
    await down;
    await expect(fetch(`${url}/health`)).rejects.toThrow('fetch failed');
  });

  it('fails what is still running at the timeout, with an error and not silence', async () => {
    const { app, engine, url } = await serve({ tokenDelayMs: 10 });
    const streaming = post(url, '/v1/completions', { prompt: 'x', max_tokens: 200, stream: true }).then((r) =>
      r.text(),
    );
    const waiting = post(url, '/v1/completions', { prompt: 'y', max_tokens: 200 });
    await expect.poll(() => engine.stats().numRunning).toBe(2);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await shutDown(app, 30);
    const { chunks, isDone } = parseSse(await streaming);
    expect(isDone).toBe(true);
    expect(chunks.at(-1)?.error).toMatchObject({ tenon_code: 'capacity.shutting-down', code: 503 });
    expect((await waiting).status).toBe(503);
  });
});

describe('listening', () => {
  it('names the port that is in use', async () => {
    const { port } = await serve();
    const other = await createApp({ engine: new ScriptedEngine(), options: { disableDocs: true } });
    apps.push(other);
    await expect(listen(other, { host: '127.0.0.1', port })).rejects.toMatchObject({
      code: 'config.port-in-use',
      message: expect.stringContaining(`127.0.0.1:${port} is in use`) as string,
    });
  });
});

describe('the openai client', () => {
  const messages = [{ role: 'user' as const, content: 'why' }];
  const prompt = [...Buffer.from('user:why;assistant:')];

  async function client(script: Script = {}, apiKey = 'key'): Promise<OpenAI> {
    const { url } = await serve(script, { apiKeys: ['key'] });
    return new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
  }

  it('lists models, chats and completes', async () => {
    const openai = await client();
    const models = await openai.models.list();
    expect(models.data.map((model) => model.id)).toEqual(['scripted']);
    expect((await openai.models.retrieve('scripted')).owned_by).toBe('tenon');
    const chat = await openai.chat.completions.create({
      model: 'scripted',
      messages,
      max_completion_tokens: 4,
    });
    expect(chat.choices[0]?.message.content).toBe(scriptedText(prompt, 0, 4));
    const completion = await openai.completions.create({
      model: 'scripted',
      prompt: [104, 105],
      max_tokens: 3,
    });
    expect(completion.choices[0]?.text).toBe(scriptedText([104, 105], 0, 3));
  });

  it('streams', async () => {
    const openai = await client();
    const stream = await openai.chat.completions.create({
      model: 'scripted',
      messages,
      max_tokens: 6,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let total = 0;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      total = chunk.usage?.total_tokens ?? total;
    }
    expect(text).toBe(scriptedText(prompt, 0, 6));
    expect(total).toBe(prompt.length + 6);
    const final = await openai.chat.completions
      .stream({ model: 'scripted', messages, max_tokens: 6 })
      .finalContent();
    expect(final).toBe(text);
    const completion = await openai.completions.create({
      model: 'scripted',
      prompt: [104],
      max_tokens: 3,
      stream: true,
    });
    let completed = '';
    for await (const chunk of completion) completed += chunk.choices[0]?.text ?? '';
    expect(completed).toBe(scriptedText([104], 0, 3));
  });

  it('raises its exceptions', async () => {
    const openai = await client();
    await expect(openai.chat.completions.create({ model: 'none', messages })).rejects.toBeInstanceOf(
      NotFoundError,
    );
    const refused = openai.chat.completions.create({
      model: 'scripted',
      messages,
      tools: [{ type: 'function', function: { name: 'f' } }],
    });
    await expect(refused).rejects.toBeInstanceOf(BadRequestError);
    await expect(refused).rejects.toMatchObject({
      param: 'tools',
      message: expect.stringContaining('tools') as string,
    });
    const wrongKey = await client({}, 'wrong');
    await expect(wrongKey.models.list()).rejects.toBeInstanceOf(AuthenticationError);
    const failing = await client({ failAfterTokens: 2 });
    const stream = await failing.chat.completions.create({ model: 'scripted', messages, stream: true });
    const read = async (): Promise<void> => {
      for await (const chunk of stream) expect(chunk.object).toBe('chat.completion.chunk');
    };
    await expect(read()).rejects.toBeInstanceOf(APIError);
  });
});
