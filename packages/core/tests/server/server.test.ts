import type { FastifyInstance, LightMyRequestResponse } from 'fastify';
import { describe, expect, it } from 'vitest';

import { TenonError } from '../../src/errors.js';
import { createApp } from '../../src/server/app.js';
import { ScriptedEngine } from './scripted-engine.js';

async function start(options = {}, engine = new ScriptedEngine()): Promise<FastifyInstance> {
  return createApp({ engine, options: { disableDocs: true, ...options } });
}

function post(
  app: FastifyInstance,
  url: string,
  payload: object | string,
  headers = {},
): Promise<LightMyRequestResponse> {
  return app.inject({ method: 'POST', url, payload, headers });
}

describe('errors', () => {
  it('answers requests without a body and without a content type', async () => {
    const app = await start();
    for (const url of ['/v1/completions', '/v1/chat/completions', '/tokenize', '/detokenize']) {
      const response = await app.inject({ method: 'POST', url });
      expect([url, response.statusCode]).toEqual([url, 400]);
      expect(response.json()).toHaveProperty('error.message', 'the body must be a JSON object, not nothing');
    }
    expect((await app.inject({ method: 'POST', url: '/ping' })).statusCode).not.toBe(400);
  });

  it.each([
    ['broken JSON', '{"prompt": ', 400, 'Bad Request', null, 'request.invalid-body'],
    ['no body', '', 400, 'Bad Request', null, 'request.invalid-body'],
    ['an array', '[1]', 400, 'Bad Request', null, 'request.invalid-body'],
    [
      'a wrong type',
      '{"prompt":"x","temperature":"hot"}',
      400,
      'Bad Request',
      'temperature',
      'request.invalid-body',
    ],
    [
      'a number as text',
      '{"prompt":"x","max_tokens":"5"}',
      400,
      'Bad Request',
      'max_tokens',
      'request.invalid-body',
    ],
    ['a mixed list', '{"prompt":["a",1]}', 400, 'Bad Request', 'prompt', 'request.invalid-body'],
    ['a missing field', '{}', 400, 'Bad Request', 'prompt', 'request.invalid-body'],
    [
      'a deep type',
      '{"prompt":"x","stream":true,"stream_options":{"include_usage":3}}',
      400,
      'Bad Request',
      'stream_options.include_usage',
      'request.invalid-body',
    ],
    [
      'out of range',
      '{"prompt":"x","temperature":3}',
      400,
      'BadRequestError',
      'temperature',
      'request.invalid-value',
    ],
    [
      'n of greedy',
      '{"prompt":"x","temperature":0,"n":2}',
      400,
      'BadRequestError',
      'n',
      'request.invalid-value',
    ],
    ['n', '{"prompt":"x","n":20000}', 400, 'BadRequestError', 'n', 'request.invalid-value'],
    [
      'stop',
      '{"prompt":"x","stop":["a","b","c","d","e"]}',
      400,
      'BadRequestError',
      'stop',
      'request.invalid-value',
    ],
    ['an empty stop', '{"prompt":"x","stop":""}', 400, 'Bad Request', 'stop', 'request.invalid-body'],
    ['logprobs', '{"prompt":"x","logprobs":21}', 400, 'BadRequestError', 'logprobs', 'request.invalid-value'],
    [
      'min > max',
      '{"prompt":"x","max_tokens":2,"min_tokens":3}',
      400,
      'BadRequestError',
      'min_tokens',
      'request.invalid-value',
    ],
    ['no tokens', '{"prompt":[]}', 400, 'BadRequestError', 'prompt', 'request.prompt-empty'],
    [
      'max_tokens 0',
      '{"prompt":"x","max_tokens":0}',
      400,
      'BadRequestError',
      'max_tokens',
      'request.invalid-value',
    ],
    [
      'an unknown model',
      '{"prompt":"x","model":"gpt-9"}',
      404,
      'NotFoundError',
      'model',
      'request.model-not-found',
    ],
  ])('%s', async (_what, body, status, type, param, code) => {
    const response = await post(await start(), '/v1/completions', body, {
      'content-type': 'application/json',
    });
    expect(response.statusCode, response.body).toBe(status);
    expect(response.json()).toEqual({
      error: { message: expect.stringMatching(/\w/) as string, type, param, code: status, tenon_code: code },
    });
  });

  it('names both numbers of a prompt that is too long', async () => {
    const response = await post(await start(), '/v1/completions', { prompt: 'x'.repeat(300) });
    expect(response.statusCode).toBe(400);
    expect(response.json()).toMatchObject({
      error: { message: expect.stringMatching(/301.*256/) as string },
    });
  });

  it('names the served models beside an unknown one', async () => {
    const app = await start({ servedModelNames: ['one', 'org/two'] });
    const response = await post(app, '/v1/completions', { prompt: 'x', model: 'three' });
    expect(response.json()).toMatchObject({
      error: { message: "the model 'three' does not exist; served: one, org/two" },
    });
  });

  it('takes at most 1024 prompts, and bodies up to the limit', async () => {
    const app = await start({ bodyLimitBytes: 20_000 });
    const many = await post(app, '/v1/completions', { prompt: Array.from({ length: 1025 }, () => 'x') });
    expect(many.json()).toMatchObject({
      error: { param: 'prompt', message: expect.stringContaining('1024') as string },
    });
    const large = await post(app, '/v1/completions', { prompt: 'x'.repeat(20_000) });
    expect(large.statusCode).toBe(413);
    expect(large.json()).toMatchObject({ error: { code: 413 } });
  });

  it('refuses what is not JSON', async () => {
    const response = await post(await start(), '/v1/completions', 'hello', { 'content-type': 'text/plain' });
    expect(response.statusCode).toBe(400);
    expect(response.json()).toMatchObject({
      error: { type: 'Bad Request', message: expect.stringContaining('application/json') as string },
    });
  });

  it('tells unknown routes from wrong methods', async () => {
    const app = await start();
    const unknown = await app.inject('/v1/nothing');
    expect(unknown.statusCode).toBe(404);
    expect(unknown.json()).toMatchObject({ error: { type: 'Not Found', code: 404 } });
    const method = await app.inject('/v1/completions');
    expect(method.statusCode).toBe(405);
    expect(method.headers['allow']).toBe('POST');
  });

  it.each([
    [new TenonError('capacity.queue-full', 'full', { retryAfterSeconds: 7 }), 429, '7'],
    [new TenonError('capacity.memory', 'no room'), 503, '1'],
    [new TenonError('internal.engine-died', 'gone: /srv/secret/model.bin'), 500, undefined],
    [new Error('cannot read /srv/secret/model.bin'), 500, undefined],
  ])('answers %s', async (failure, status, retryAfter) => {
    const engine = new ScriptedEngine({ failAfterTokens: 0, failure: failure as TenonError });
    const response = await post(await start({}, engine), '/v1/completions', { prompt: 'x' });
    expect(response.statusCode).toBe(status);
    expect(response.headers['retry-after']).toBe(retryAfter);
    expect(response.body).not.toContain('secret');
  });
});

describe('authentication', () => {
  it('tells keys by schemes and whole tokens, and lets preflights pass', async () => {
    const app = await createApp({ engine: new ScriptedEngine(), options: { apiKeys: ['one', 'two'] } });
    const withKey = (authorization: string): Promise<LightMyRequestResponse> =>
      app.inject({ url: '/v1/models', headers: { authorization } });
    expect((await withKey('Bearer one')).statusCode).toBe(200);
    expect((await withKey('bearer two')).statusCode).toBe(200);
    for (const wrong of ['Bearer three', 'Bearer', 'Basic one', 'one', 'Bearer on']) {
      expect((await withKey(wrong)).statusCode, wrong).toBe(401);
    }
    const preflight = await app.inject({
      method: 'OPTIONS',
      url: '/v1/models',
      headers: { origin: 'http://a.example', 'access-control-request-method': 'GET' },
    });
    expect(preflight.statusCode).toBe(204);
  });
});

describe('CORS', () => {
  it('answers any origin by default, or those allowed', async () => {
    const headers = { origin: 'http://a.example' };
    const open = await (await start()).inject({ url: '/health', headers });
    expect(open.headers['access-control-allow-origin']).toBe('*');
    const app = await start({ allowedOrigins: ['http://a.example'], allowCredentials: true });
    const listed = await app.inject({ url: '/health', headers });
    expect(listed.headers).toMatchObject({
      'access-control-allow-origin': 'http://a.example',
      'access-control-allow-credentials': 'true',
    });
    const other = await app.inject({ url: '/health', headers: { origin: 'http://b.example' } });
    expect(other.headers['access-control-allow-origin']).toBeUndefined();
    const streamed = await app.inject({
      method: 'POST',
      url: '/v1/completions',
      headers,
      payload: { prompt: 'x', stream: true },
    });
    expect(streamed.headers['access-control-allow-origin']).toBe('http://a.example');
  });
});

describe('models', () => {
  it('lists each served name, also those with slashes', async () => {
    const app = await start({ servedModelNames: ['one', 'org/two'] });
    const list = (await app.inject('/v1/models')).json<{ data: object[] }>();
    expect(list).toMatchObject({ object: 'list', data: [{ id: 'one' }, { id: 'org/two' }] });
    expect(list.data[0]).toMatchObject({
      object: 'model',
      owned_by: 'tenon',
      root: '/models/scripted',
      parent: null,
      max_model_len: 256,
      backend: { id: 'scripted', version: '0.0.0', device: 'none' },
      permission: [{ object: 'model_permission' }],
    });
    expect((await app.inject('/v1/models/org/two')).json()).toMatchObject({ id: 'org/two' });
    expect((await app.inject('/v1/models/org%2Ftwo')).json()).toMatchObject({ id: 'org/two' });
    expect((await app.inject('/v1/models/three')).statusCode).toBe(404);
    const answer = await post(app, '/v1/completions', { prompt: 'x', model: 'org/two', max_tokens: 1 });
    expect(answer.json()).toMatchObject({ model: 'org/two' });
  });
});

describe('health, version, docs', () => {
  it('turns red with the engine', async () => {
    const engine = new ScriptedEngine();
    const app = await start({}, engine);
    for (const method of ['GET', 'POST'] as const)
      expect((await app.inject({ method, url: '/ping' })).statusCode).toBe(200);
    expect((await app.inject('/health')).body).toBe('');
    engine.unhealthyReason = 'no step ends';
    const red = await app.inject('/health');
    expect(red.statusCode).toBe(503);
    expect(red.json()).toMatchObject({
      error: { message: expect.stringContaining('no step ends') as string },
    });
    expect((await app.inject('/ping')).statusCode).toBe(503);
  });

  it('tells the version, and the request id where asked', async () => {
    const app = await start({ enableRequestIdHeaders: true });
    const response = await app.inject({ url: '/version', headers: { 'x-request-id': 'r1' } });
    expect(response.json()).toEqual({ version: expect.stringMatching(/^\d+\.\d+\.\d+/) as string });
    expect(response.headers['x-request-id']).toBe('r1');
  });

  it('describes every route in /openapi.json and shows it under /docs', async () => {
    const app = await createApp({ engine: new ScriptedEngine() });
    const { paths } = (await app.inject('/openapi.json')).json<{
      paths: Record<string, Record<string, object>>;
    }>();
    for (const path of [
      '/v1/completions',
      '/v1/chat/completions',
      '/v1/models/{model}',
      '/tokenize',
      '/detokenize',
      '/health',
      '/metrics',
    ]) {
      expect(Object.keys(paths)).toContain(path);
    }
    expect(paths['/v1/completions']).toHaveProperty(
      [
        'post',
        'requestBody',
        'content',
        'application/json',
        'schema',
        'properties',
        'temperature',
        'maximum',
      ],
      2,
    );
    expect((await app.inject('/docs/')).body).toContain('swagger-ui');
    expect((await (await start()).inject('/openapi.json')).statusCode).toBe(404);
  });

  it('has /load with its option only', async () => {
    expect((await (await start()).inject('/load')).statusCode).toBe(404);
    const app = await start({ enableServerLoadTracking: true }, new ScriptedEngine({ tokenDelayMs: 20 }));
    const running = post(app, '/v1/completions', { prompt: 'x', max_tokens: 3 });
    await expect.poll(async () => (await app.inject('/load')).json<unknown>()).toEqual({ server_load: 1 });
    await running;
    expect((await app.inject('/load')).json()).toEqual({ server_load: 0 });
  });
});
