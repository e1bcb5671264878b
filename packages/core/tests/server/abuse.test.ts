/** Clients that are slow, silent, broken or hostile: each is answered or cut in time, and nobody else notices. */
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';

import { createApp } from '../../src/server/app.js';
import { listen } from '../../src/server/listen.js';
import type { ServerOptions } from '../../src/server/server-options.js';
import { completionRequest, rawClient, statusesOf } from './raw-client.js';
import { type Script, ScriptedEngine } from './scripted-engine.js';

const apps: FastifyInstance[] = [];
afterEach(async () => {
  for (const app of apps.splice(0)) {
    app.server.closeAllConnections();
    await app.close();
  }
});

interface Served {
  readonly app: FastifyInstance;
  readonly engine: ScriptedEngine;
  readonly url: string;
  readonly port: number;
  log(): string;
}

async function serve(script: Script = {}, options: Partial<ServerOptions> = {}): Promise<Served> {
  const engine = new ScriptedEngine(script);
  let log = '';
  const logger = pino({ level: 'trace' }, { write: (line: string) => (log += line) });
  const app = await createApp({ engine, options: { disableDocs: true, logger, ...options } });
  apps.push(app);
  const url = await listen(app, { host: '127.0.0.1', port: 0 });
  return { app, engine, url, port: Number(new URL(url).port), log: () => log };
}

const isHealthy = async (url: string): Promise<boolean> => (await fetch(`${url}/health`)).ok;
const long = { info: { maxModelLen: 1_000_000 } };
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe('a client that stops reading', () => {
  it('is cut, with a line in the log, and others go on meanwhile', async () => {
    const { app, engine, url, port, log } = await serve(long, { clientTimeoutSeconds: 0.3 });
    const { socket, closed } = rawClient(
      port,
      completionRequest({ prompt: 'x', max_tokens: 900_000, stream: true }),
    );
    socket.pause();
    await expect.poll(() => engine.stats().numRunning).toBe(1);
    const other = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'y', max_tokens: 20 }),
    });
    expect(other.status).toBe(200);
    await expect.poll(() => engine.aborted.length, { timeout: 3000 }).toBe(1);
    expect(log()).toMatch(/a client has read nothing for 0\.3 s, with \d+ bytes waiting for it/);
    expect(app.tenon.state.numActiveRequests).toBe(0);
    socket.resume();
    await closed;
  });

  it('holds no more of its answer than a few writes', async () => {
    const { app, engine, port } = await serve(long, { clientTimeoutSeconds: 5 });
    const connections: { writableLength: number }[] = [];
    app.server.on('connection', (socket) => connections.push(socket));
    const { socket } = rawClient(port, completionRequest({ prompt: 'x', max_tokens: 900_000, stream: true }));
    socket.pause();
    await expect.poll(() => connections[0]?.writableLength).toBeGreaterThan(0);
    await pause(200);
    expect(connections[0]?.writableLength).toBeLessThan(256 * 1024);
    expect(engine.stats().numRunning).toBe(1);
    socket.destroy();
    await expect.poll(() => engine.stats().numRunning).toBe(0);
  });
});

describe('a client that waits', () => {
  it('is not cut, however long its answer takes', async () => {
    const { port } = await serve({ tokenDelayMs: 1500 }, { clientTimeoutSeconds: 0.6 });
    const headers = { connection: 'close' };
    const whole = rawClient(port, completionRequest({ prompt: 'x', max_tokens: 2 }, headers));
    const stream = rawClient(port, completionRequest({ prompt: 'x', max_tokens: 2, stream: true }, headers));
    await Promise.all([whole.closed, stream.closed]);
    expect(statusesOf(whole.text())).toEqual([200]);
    expect(stream.text()).toContain('data: [DONE]');
  });

  it('has gone when it has closed its own side: its request is aborted', async () => {
    const { engine, port } = await serve({ tokenDelayMs: 20 });
    const { socket, closed } = rawClient(
      port,
      completionRequest({ prompt: 'x', max_tokens: 200, stream: true }),
    );
    await expect.poll(() => engine.stats().numRunning).toBe(1);
    socket.end();
    await closed;
    await expect.poll(() => engine.aborted).toHaveLength(1);
  });
});

describe('a client that sends slowly', () => {
  const cases: readonly [string, string][] = [
    ['headers', 'POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-a'],
    ['a body', completionRequest({ prompt: 'x'.repeat(1000) }).slice(0, -900)],
  ];
  it.each(cases)('%s gets 408 in time', async (_, request) => {
    const { url, port, log } = await serve({}, { clientTimeoutSeconds: 0.4 });
    const { socket, text, closed } = rawClient(port, request);
    const drip = setInterval(() => socket.write('a'), 50);
    const startMs = performance.now();
    await closed;
    clearInterval(drip);
    expect(performance.now() - startMs).toBeLessThan(2000);
    expect(text()).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\nconnection: close/);
    expect(text()).toContain('"tenon_code":"request.timeout"');
    expect(log()).toContain('a request did not arrive within 0.4 s: the connection is closed');
    expect(await isHealthy(url)).toBe(true);
  });

  it('nothing at all is cut in silence', async () => {
    const { port } = await serve({}, { clientTimeoutSeconds: 0.2 });
    const { text, closed } = rawClient(port);
    await closed;
    expect(text()).toBe('');
  });
});

describe('what is no request', () => {
  const tooLong = `GET /health HTTP/1.1\r\nhost: x\r\nx-long: ${'a'.repeat(20_000)}\r\n\r\n`;
  const cases: readonly [string, string, number, string][] = [
    ['oversize headers', tooLong, 431, 'request.too-large'],
    ['a line too long', `GET /${'a'.repeat(20_000)} HTTP/1.1\r\n\r\n`, 431, 'request.too-large'],
    ['no HTTP', 'hello\r\n\r\n', 400, 'request.invalid-http'],
    ['binary', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc', 400, 'request.invalid-http'],
    ['a bad length', 'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n', 400, 'request.invalid-http'],
    ['two lengths', 'POST /ping HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab', 400, 'request.invalid-http'],
    ['a length and chunks', 'POST /ping HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n', 400, 'request.invalid-http'],
    ['a bad chunk', 'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n', 400, 'request.invalid-http'],
    ['a bad path', 'GET /%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n', 400, 'request.invalid-http'],
    ['a body too large', completionRequest({ prompt: 'x'.repeat(3000) }, { connection: 'close' }), 413, 'request.too-large'],
  ]; // prettier-ignore
  it.each(cases)('%s', async (_, bytes, status, code) => {
    const { url, port } = await serve({}, { bodyLimitBytes: 2000 });
    const { text, closed } = rawClient(port, bytes);
    await closed;
    expect(statusesOf(text())).toEqual([status]);
    expect(JSON.parse(text().slice(text().indexOf('\r\n\r\n')))).toEqual({
      error: {
        message: expect.stringMatching(/\w/) as string,
        type: expect.any(String) as string,
        param: null,
        code: status,
        tenon_code: code,
      },
    });
    expect(await isHealthy(url)).toBe(true);
  });

  it('after a good one on the same connection is refused, and ends it', async () => {
    const { port } = await serve();
    const { socket, text, closed } = rawClient(port, 'GET /health HTTP/1.1\r\nhost: x\r\n\r\n');
    await expect.poll(text).toContain('200 OK');
    socket.write('nonsense\r\n\r\n');
    await closed;
    expect(statusesOf(text())).toEqual([200, 400]);
  });

  it('may nest as deep as it likes', async () => {
    const { url, port } = await serve();
    const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;
    for (const body of [deep, `{"prompt":${deep}}`, `{"prompt":"x","logit_bias":${deep}}`]) {
      const head = `POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n`;
      const { text, closed } = rawClient(port, head, body);
      await closed;
      expect(statusesOf(text()), text().slice(0, 300)).toEqual([400]);
    }
    expect(await isHealthy(url)).toBe(true);
  });
});

describe('pipelined requests', () => {
  it('are answered in order', async () => {
    const { port } = await serve({ tokenDelayMs: 2 });
    const requests = [3, 1, 2].map((n) =>
      completionRequest({ prompt: 'x', max_tokens: n }, n === 2 ? { connection: 'close' } : {}),
    );
    const { text, closed } = rawClient(port, requests.join(''));
    await closed;
    expect(statusesOf(text())).toEqual([200, 200, 200]);
    expect([...text().matchAll(/"completion_tokens":(\d)/g)].map(([, n]) => Number(n))).toEqual([3, 1, 2]);
  });

  it('all end with their connection', async () => {
    const { app, engine, port } = await serve({ ...long, tokenDelayMs: 5 });
    const request = completionRequest({ prompt: 'x', max_tokens: 10_000, stream: true });
    const { socket } = rawClient(port, request.repeat(20));
    await expect.poll(() => engine.stats().numRunning).toBe(20);
    socket.destroy();
    await expect.poll(() => engine.stats().numRunning).toBe(0);
    expect(engine.aborted).toHaveLength(20);
    expect(app.tenon.state.numActiveRequests).toBe(0);
  });
});
