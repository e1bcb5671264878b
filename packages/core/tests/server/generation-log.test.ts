import { pino } from 'pino';
import { expect, it } from 'vitest';

import { createApp } from '../../src/server/app.js';
import type { ServerOptions } from '../../src/server/server-options.js';
import { ScriptedEngine } from './scripted-engine.js';

/** What is logged about one request. */
async function logged(options: Partial<ServerOptions>, payload: object): Promise<string[]> {
  const lines: string[] = [];
  const logger = pino(
    { base: null },
    { write: (line) => void lines.push((JSON.parse(line) as { msg: string }).msg) },
  );
  const app = await createApp({
    engine: new ScriptedEngine({ numCachedTokens: 2 }),
    options: {
      disableDocs: true,
      accessLog: false,
      logger,
      ...options,
    },
  });
  const response = await app.inject({ method: 'POST', url: '/v1/completions', payload });
  expect(response.statusCode, response.body).toBe(200);
  return lines;
}

const request = { prompt: 'tell\u001B[2J me', max_tokens: 3, temperature: 0.5, request_id: 'mine' };

it('logs ids, prompts, parameters, sizes and times with --log-requests', async () => {
  const [arrival, end, ...rest] = await logged({ logRequests: true }, request);
  expect(arrival).toMatch(
    /^cmpl-mine-0-\d+ arrived: prompt "tell\\u001b\[2J me"; maxTokens 3, temperature 0.5$/,
  );
  expect(end).toMatch(
    /^cmpl-mine-0-\d+ ended \(length\): prompt 12 tokens \(2 cached\), answer 3 tokens; started after 1 ms, first token after 2 ms, end after 4 ms$/,
  );
  expect(rest).toEqual([]);
});

it('cuts prompts at --max-log-len characters or tokens', async () => {
  const options = { logRequests: true, maxLogLen: 4 };
  expect((await logged(options, request))[0]).toContain('prompt "tell"… of 11 characters');
  expect((await logged(options, { prompt: [1, 2, 3, 4, 5] }))[0]).toContain('prompt [1,2,3,4]… of 5 tokens');
  expect((await logged({ ...options, maxLogLen: 0 }, request))[0]).toContain('prompt ""… of 11 characters');
});

it('logs streamed requests too, and nothing of any without --log-requests', async () => {
  expect(await logged({ logRequests: true }, { ...request, stream: true })).toHaveLength(2);
  expect(await logged({}, request)).toEqual([]);
});
