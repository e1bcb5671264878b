/** Against servers that answer well and badly. */
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, describe, expect, it } from 'vitest';

import { interTokenMs } from './request-trace.js';
import { runLoad } from './run-load.js';
import { streamRequest, type Target } from './stream-client.js';

let server: Server | undefined;
const bodies: Record<string, unknown>[] = [];

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  bodies.length = 0;
});

async function start(
  answer: (response: ServerResponse) => unknown,
  given: Partial<Target> = {},
): Promise<Target> {
  server = createServer((request, response) => {
    let body = '';
    request.on('data', (text) => (body += text));
    request.on('end', () => {
      bodies.push(JSON.parse(body) as Record<string, unknown>);
      void answer(response);
    });
  });
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/completions`);
  return { url, backend: 'openai', model: 'm', headers: {}, ignoreEos: true, temperature: 0, extraBody: {}, ...given }; // prettier-ignore
}

const event = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`;
const text = (word: string): string => event({ choices: [{ text: word, finish_reason: null }] });
const usage = (prompt: number, completion: number): string =>
  event({ choices: [], usage: { prompt_tokens: prompt, completion_tokens: completion } });
const done = 'data: [DONE]\n\n';
const request = { prompt: [5, 6, 7], numPromptTokens: 3, numOutputTokens: 2 };

describe('streamRequest', () => {
  it('times the pieces as they come, however they are cut', async () => {
    const target = await start(async (response) => {
      const pieces = text('é') + text('b');
      const bytes = Buffer.from(pieces);
      response.write(bytes.subarray(0, 29));
      await sleep(30);
      response.write(bytes.subarray(29, 60));
      await sleep(30);
      response.end(Buffer.concat([bytes.subarray(60), Buffer.from(usage(3, 2) + done)]));
    });
    const trace = await streamRequest(target, request);
    expect(trace).toMatchObject({ text: 'éb', numPromptTokens: 3, numOutputTokens: 2, error: undefined });
    expect(trace.pieceMs).toHaveLength(2);
    expect(interTokenMs(trace)[0]).toBeGreaterThan(15);
    expect(bodies).toEqual([
      { model: 'm', prompt: [5, 6, 7], max_tokens: 2, temperature: 0, stream: true, stream_options: { include_usage: true }, ignore_eos: true },
    ]); // prettier-ignore
  });

  it('does not count the head and the tail of a chat as tokens', async () => {
    const delta = (value: object, finish: string | null = null): string =>
      event({ choices: [{ delta: value, finish_reason: finish }] });
    const target = await start(
      (response) =>
        response.end(
          delta({ role: 'assistant', content: '' }) + delta({ content: 'a' }) + delta({ content: 'b' }) + delta({}, 'length') + usage(9, 2) + done,
        ), // prettier-ignore
      { backend: 'openai-chat', extraBody: { top_k: 1 } },
    );
    const trace = await streamRequest(target, {
      prompt: 'hi',
      numPromptTokens: undefined,
      numOutputTokens: 2,
    });
    expect(trace).toMatchObject({ text: 'ab', numPromptTokens: 9, error: undefined });
    expect(trace.pieceMs).toHaveLength(2);
    expect(bodies[0]).toMatchObject({ messages: [{ role: 'user', content: 'hi' }], top_k: 1 });
  });

  it.each([
    ['too few tokens', text('a') + usage(3, 1) + done, /1 tokens, not the 2 asked for/],
    ['too many tokens', text('a') + usage(3, 3) + done, /3 tokens/],
    ['another prompt', text('a') + usage(4, 2) + done, /read 4 prompt tokens of 3/],
    ['no usage', text('a') + text('b') + done, /usage/],
    ['an empty answer', usage(3, 2) + done, /empty/],
    ['no end', text('a') + usage(3, 2), /without \[DONE\]/],
    ['an error event', text('a') + event({ error: { message: 'out of blocks' } }) + done, /out of blocks/],
    ['an event that is not JSON', `data: {oops\n\n${usage(3, 2)}${done}`, /not JSON/],
  ])('says so where the answer has %s', async (_name, answer, expected) => {
    const target = await start((response) => response.end(answer));
    expect((await streamRequest(target, request)).error).toMatch(expected);
  });

  it('says what a refusing server said', async () => {
    const target = await start((response) =>
      response.writeHead(429).end('{"error":{"message":"queue is full"}}'),
    );
    expect((await streamRequest(target, request)).error).toMatch(/status 429.*queue is full/);
  });

  it('says so when the connection breaks', async () => {
    const target = await start((response) => {
      response.write(text('a'));
      setTimeout(() => response.destroy(), 10);
    });
    expect((await streamRequest(target, request)).error).toMatch(/aborted|hang up|premature/i);
    const nobody = { ...target, url: new URL('http://127.0.0.1:9/v1/completions') };
    expect((await streamRequest(nobody, request)).error).toMatch(/ECONNREFUSED/);
  });

  it('takes shorter answers where end tokens count', async () => {
    const target = await start((response) => response.end(text('a') + usage(3, 1) + done), {
      ignoreEos: false,
    });
    expect((await streamRequest(target, request)).error).toBeUndefined();
    expect(bodies[0]).not.toHaveProperty('ignore_eos');
  });
});

describe('runLoad', () => {
  const answer = text('a') + text('b') + usage(3, 2) + done;

  it('runs as many at once as allowed, and keeps the order', async () => {
    let running = 0;
    let most = 0;
    const target = await start(async (response) => {
      most = Math.max(most, ++running);
      await sleep(5);
      running--;
      response.end(answer);
    });
    const requests = Array.from({ length: 10 }, () => request);
    const done: number[] = [];
    const load = { offsetsMs: requests.map(() => 0), maxConcurrency: 3 };
    const { traces } = await runLoad(target, requests, {
      ...load,
      onDone: (_, numDone) => done.push(numDone),
    });
    expect(traces.map(({ error }) => error)).toEqual(requests.map(() => undefined));
    expect(most).toBe(3);
    expect(done).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  it('sends requests when they are due', async () => {
    const target = await start((response) => response.end(answer));
    const offsetsMs = [0, 40, 80];
    const { traces, durationMs } = await runLoad(target, [request, request, request], { offsetsMs, maxConcurrency: Infinity }); // prettier-ignore
    const first = traces[0]!.startMs;
    expect(traces[1]!.startMs - first).toBeGreaterThan(35);
    expect(traces[2]!.startMs - first).toBeGreaterThan(75);
    expect(durationMs).toBeGreaterThan(75);
  });
});
