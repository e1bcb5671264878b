/** What a stranger may see: no route without the key, and nothing of other people's requests in the log. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';

import { TenonError } from '../../src/errors.js';
import { createApp } from '../../src/server/app.js';
import { listen } from '../../src/server/listen.js';
import type { ServerOptions } from '../../src/server/server-options.js';
import { completionRequest, rawClient } from './raw-client.js';
import { type Script, ScriptedEngine } from './scripted-engine.js';

/** `GET /path` of every route that is registered, those of plugins too. */
function routesOf(app: FastifyInstance): string[] {
  const table = app.printRoutes({ commonPrefix: false });
  const paths: string[] = [];
  for (const line of table.split('\n')) {
    const match = /^([│ ]*)[├└]── (\S*) \(([A-Z, ]+)\)/.exec(line);
    if (match === null) continue;
    for (const method of match[3]!.split(', ')) paths.push(`${method} ${match[2]}`);
  }
  return paths;
}

const withKey = { authorization: 'Bearer the-key' };

describe('an API key', () => {
  const options = { apiKeys: ['the-key'], enableServerLoadTracking: true };
  const open = new Set(['GET /health', 'HEAD /health', 'GET /ping', 'HEAD /ping', 'POST /ping']);

  it('is asked for on every route but /health and /ping', async () => {
    const app = await createApp({ engine: new ScriptedEngine(), options });
    await app.ready();
    const routes = routesOf(app).filter((route) => !route.startsWith('OPTIONS '));
    for (const known of ['POST /v1/completions', 'GET /metrics', 'GET /version', 'GET /load', 'GET /openapi.json'])
      expect(routes).toContain(known);
    expect(routes.length).toBeGreaterThan(20);
    for (const route of [...routes, 'GET /nowhere', 'DELETE /v1/models', 'GET //health', 'GET /health/']) {
      const [method, url] = route.split(' ') as ['GET', string];
      for (const headers of [{}, { authorization: 'Bearer wrong' }]) {
        const { statusCode, body } = await app.inject({ method, url, headers });
        expect(statusCode, route).toBe(open.has(route) ? 200 : 401);
        if (!open.has(route) && method !== ('HEAD' as string)) expect(JSON.parse(body)).toEqual({ error: 'Unauthorized' });
      }
      expect((await app.inject({ method, url, headers: withKey })).statusCode, route).not.toBe(401);
    }
  }); // prettier-ignore

  it('cannot be got round by how a path is written', async () => {
    const app = await createApp({ engine: new ScriptedEngine(), options });
    const port = Number(new URL(await listen(app, { host: '127.0.0.1', port: 0 })).port);
    const paths = ['/v1/models?/health', '/v1/models#/health', 'http://x/v1/models', '/%76%31/models', '/health/../v1/models', '/v1/models;/health'];
    for (const path of paths) {
      const { text, closed } = rawClient(port, `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
      await closed;
      expect(text(), path).toMatch(/^HTTP\/1\.1 401 /);
    }
    await app.close();
  }); // prettier-ignore

  it('is compared in constant time', () => {
    const source = readFileSync(join(import.meta.dirname, '../../src/server/auth.ts'), 'utf8');
    expect(source).toContain('timingSafeEqual(given, expected)');
    // Nothing else may look at the token.
    expect(source.match(/\btoken\b/g)).toHaveLength(2);
  });
});

describe('the log', () => {
  const markers = [
    'marker-prompt',
    'marker-header',
    'marker-path',
    'marker-query',
    'marker-key',
    'marker-id',
  ];

  /** A session of good and bad requests, each full of markers; returns what was logged at `level`. */
  async function logOf(
    level: string,
    script: Script = {},
    options: Partial<ServerOptions> = {},
  ): Promise<string> {
    let log = '';
    const logger = pino({ level }, { write: (line: string) => (log += line) });
    const engine = new ScriptedEngine(script);
    const app = await createApp({ engine, options: { disableDocs: true, logger, clientTimeoutSeconds: 0.3, ...options } });
    const port = Number(new URL(await listen(app, { host: '127.0.0.1', port: 0 })).port);
    const headers = { connection: 'close', 'x-marker': 'marker-header', 'x-request-id': 'marker-id', authorization: 'Bearer marker-key' };
    const completion = (body: object): string => completionRequest(body, headers);
    const get = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-marker: marker-header\r\n\r\n`;
    const requests = [
      completion({ prompt: 'marker-prompt', max_tokens: 3 }),
      completion({ prompt: 'marker-prompt', max_tokens: 3, stream: true }),
      completion({ prompt: 'marker-prompt', temperature: 'marker-prompt' }),
      completion({ prompt: 'marker-prompt', model: 'marker-prompt' }),
      completion({ prompt: 'marker-prompt'.repeat(100) }),
      completion({ prompt: 'marker-prompt', user: 'marker-prompt', tools: ['marker-prompt'] }),
      completion({ prompt: 'marker-prompt' }).replace('application/json', 'text/marker-header'),
      completion({ prompt: 'marker-prompt' }).replace('"prompt":', 'marker-prompt'),
      get('/marker-path?x=marker-query'),
      get('/v1/models/marker-path?x=marker-query'),
      get('/%zz-marker-path'),
      get('/health?x=marker-query'),
      'marker-path marker-header\r\n\r\n',
      `GET /marker-path HTTP/1.1\r\nx: ${'marker-header'.repeat(2000)}\r\n\r\n`,
      completion({ prompt: 'marker-prompt'.repeat(10) }).slice(0, -20),
      `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 73\r\n\r\n{"messages":[{"role":"user","content":"marker-prompt"}],"max_tokens":200}`,
    ];
    await Promise.all(requests.map((bytes) => rawClient(port, bytes).closed));
    await app.close();
    return log;
  } // prettier-ignore

  const failures: [string, Script][] = [
    ['all goes well', {}],
    ['a request fails', { failAfterTokens: 1, failure: new TenonError('backend.step-failed', 'the step failed') }],
    ['something throws', { failAfterTokens: 1, failure: new TypeError('x is undefined') as TenonError }],
  ]; // prettier-ignore

  it.each(failures)('has no path, header, key or prompt of a client, when %s', async (_, script) => {
    const log = await logOf('trace', script);
    expect(log).toMatch(/POST \/v1\/completions (200|500) \d+ ms/);
    expect(log).toContain('GET (no such route) 404');
    expect(log).toContain('a request did not arrive within 0.3 s');
    for (const marker of markers) expect(log).not.toContain(marker);
  });

  it('has the ids that clients choose where that was asked for', async () => {
    expect(await logOf('info', {}, { enableRequestIdHeaders: true })).toContain('marker-id');
  });
});

describe('the limits of a request', () => {
  const stops = ['a', 'b', 'c', 'd', 'e'];
  const prompts = Array.from({ length: 1025 }, () => 'x');
  const cases: [string, string, object, number, string | null, string][] = [
    ['body size', '/v1/completions', { prompt: 'x'.repeat(70_000) }, 413, null, 'request.too-large'],
    ['prompt count', '/v1/completions', { prompt: prompts }, 400, 'prompt', 'request.invalid-value'],
    ['n', '/v1/completions', { prompt: 'x', n: 16_385 }, 400, 'n', 'request.invalid-value'],
    ['n of a chat', '/v1/chat/completions', { n: 16_385 }, 400, 'n', 'request.invalid-value'],
    ['n times prompts', '/v1/completions', { prompt: prompts.slice(1), n: 17 }, 400, 'n', 'request.invalid-value'],
    ['logprobs', '/v1/completions', { prompt: 'x', logprobs: 21 }, 400, 'logprobs', 'request.invalid-value'],
    ['prompt logprobs', '/v1/completions', { prompt: 'x', prompt_logprobs: 21 }, 400, 'prompt_logprobs', 'request.invalid-value'],
    ['top logprobs', '/v1/chat/completions', { logprobs: true, top_logprobs: 21 }, 400, 'top_logprobs', 'request.invalid-value'],
    ['stop strings', '/v1/completions', { prompt: 'x', stop: stops }, 400, 'stop', 'request.invalid-value'],
    ['bad words', '/v1/completions', { prompt: 'x', bad_words: prompts.slice(0, 129) }, 400, 'bad_words', 'request.invalid-value'],
    ['length', '/v1/completions', { prompt: 'x'.repeat(300) }, 400, 'prompt', 'request.prompt-too-long'],
  ]; // prettier-ignore

  it.each(cases)('%s', async (_, url, fields, status, param, code) => {
    const engine = new ScriptedEngine();
    const app = await createApp({ engine, options: { disableDocs: true, bodyLimitBytes: 65_536 } });
    const payload = url.includes('chat') ? { messages: [{ role: 'user', content: 'x' }], ...fields } : fields;
    const response = await app.inject({ method: 'POST', url, payload });
    expect(response.json()).toMatchObject({ error: { code: status, param, tenon_code: code } });
    expect(response.statusCode).toBe(status);
    expect(engine.stats().numRunning).toBe(0);
  });
});
