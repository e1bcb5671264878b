/** What a user sees of `tenon serve` with the embedded model. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, serve, type ServeProcess } from './serve-process.js';

/** CPU time of a process and its threads in milliseconds (Linux: clock ticks of 10 ms). */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

describe('tenon serve, without arguments', () => {
  let server: ServeProcess;
  let client: OpenAI;
  beforeAll(async () => {
    server = await serve([]);
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none' });
  });
  afterAll(() => server[Symbol.asyncDispose]());

  it('says device, kernels, model, cache size, URL and a curl line', () => {
    const text = server.output();
    for (const part of [
      /cpu/i,
      /avx|generic|neon/i,
      /stories/i,
      /\d+ blocks/i,
      /\d[\d,]* tokens/i,
      server.url,
      'curl ',
    ])
      expect(text).toMatch(part);
  });

  it('runs the curl line it prints', async () => {
    const line = server
      .output()
      .split('\n')
      .map((text) => text.trim())
      .find((text) => text.startsWith('curl '))!;
    const { execFileSync } = await import('node:child_process');
    const answer = execFileSync('bash', ['-c', line.replace('curl ', 'curl -s ')], { encoding: 'utf8' });
    expect(answer).toContain('chat.completion.chunk');
    expect(answer.trim().endsWith('data: [DONE]')).toBe(true);
  });

  it('streams a story in sensible English', async () => {
    const stream = await client.chat.completions.create({
      model: (await client.models.list()).data[0]!.id,
      messages: [{ role: 'user', content: 'Tell me a story about a dog.' }],
      temperature: 0, stream: true, stream_options: { include_usage: true },
    }); // prettier-ignore
    let text = '';
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage;
    }
    expect(text).toMatch(/dog/);
    expect(text).toMatch(/^[A-Z][\w ,.'"!?;:\n-]{60,}$/);
    expect(usage!.completion_tokens).toBeGreaterThan(20);
  });

  it('uses no CPU when idle', async () => {
    // after a start, the pages of the KV cache are touched in the background (docs/decisions/0010)
    for (let last = -1; last !== cpuMs(server.child.pid!); await sleep(1000)) last = cpuMs(server.child.pid!);
    const before = cpuMs(server.child.pid!);
    await sleep(3000);
    expect(cpuMs(server.child.pid!) - before).toBeLessThanOrEqual(10);
  });

  it('refuses a second server on its port with exit 2', async () => {
    const port = new URL(server.url).port;
    const { code, stderr } = await run(['serve', '--port', port]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/config\.port-in-use/);
    expect(stderr).toContain(port);
  });

  it('ends every request when it is stopped in mid-stream, and exits 0', async () => {
    const stream = await client.completions
      .create({ model: 'x', prompt: 'Once', max_tokens: 900, stream: true, ignore_eos: true } as never)
      .catch((error) => error);
    expect(stream.status).toBe(404);
    await using other = await serve([]);
    const second = new OpenAI({ baseURL: `${other.url}/v1`, apiKey: 'none', maxRetries: 0 });
    const model = (await second.models.list()).data[0]!.id;
    const endless = {
      model,
      prompt: 'Once upon a time',
      max_tokens: 900,
      stream: true as const,
      ignore_eos: true,
    };
    const outcome = (async () => {
      let chunks = 0;
      for await (const _ of await second.completions.create(endless))
        if (++chunks === 3) other.child.kill('SIGTERM');
      return chunks;
    })().catch((error: Error) => error);
    const exit = new Promise((resolve) => other.child.once('exit', resolve));
    expect(await outcome).toBeDefined();
    expect(await exit).toBe(0);
  });
});
