/** What goes wrong at a user's end: a clear error with its code, the right exit status, and a server that goes on. */
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, serve, type ServeProcess } from './serve-process.js';

const model = fileURLToPath(new URL('../packages/model-stories/model', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tenon-bad-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A copy of the embedded model with one thing broken. */
function broken(name: string, breakIt: (path: string) => void): string {
  const path = join(folder, name);
  cpSync(model, path, { recursive: true });
  breakIt(path);
  return path;
}
function changeConfig(path: string, change: Record<string, unknown>): void {
  const config = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8'));
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, ...change }));
}

describe('tenon serve refuses to start', () => {
  const cases: readonly [what: string, args: () => string[], message: RegExp][] = [
    ['an unknown folder', () => ['./no/such/model'], /config\.model-not-found.*no\/such\/model/],
    ['a file that is no model', () => [fileURLToPath(import.meta.url)], /config\.weights-invalid.*no GGUF file.*model folder/],
    ['truncated weights', () => [broken('cut', (path) => truncateSync(join(path, 'model.safetensors'), 5_000_000))], /config\.weights-invalid.*model\.safetensors/],
    ['a cut header', () => [broken('head', (path) => truncateSync(join(path, 'model.safetensors'), 100))], /config\.weights-invalid/],
    ['broken JSON', () => [broken('json', (path) => writeFileSync(join(path, 'config.json'), '{"a": '))], /config\.model-invalid.*config\.json/],
    ['contradictory sizes', () => [broken('sizes', (path) => changeConfig(path, { hidden_size: 512 }))], /config\.weights-invalid.*256/],
    ['more layers than there are weights', () => [broken('layers', (path) => changeConfig(path, { num_hidden_layers: 9 }))], /config\.weights-missing.*layers\.6/],
    ['an unknown architecture', () => [broken('arch', (path) => changeConfig(path, { architectures: ['FooForCausalLM'] }))], /unsupported\.architecture.*FooForCausalLM.*LlamaForCausalLM/],
    ['a broken tokenizer', () => [broken('tokenizer', (path) => writeFileSync(join(path, 'tokenizer.json'), '{}'))], /config\.tokenizer-invalid/],
    ['a length beyond the model', () => ['--max-model-len', '5000'], /config\.max-model-len.*5000.*1024/],
    ['too little memory for one request', () => ['--kv-cache-memory-bytes', '100000'], /(config\.max-model-len|capacity\.memory)/],
    ['an unknown device', () => ['--device', 'tpu'], /config\.device-not-found.*tpu.*cpu/],
    ['a wrong type', () => ['--max-num-seqs', 'many'], /config\.invalid-option.*max-num-seqs.*many/],
    ['an option that vLLM has and Tenon lacks', () => ['--tensor-parallel-size', '2'], /tensor-parallel-size/],
    ['an unknown option', () => ['--no-such-option'], /config\.invalid-option.*no-such-option/],
  ]; // prettier-ignore

  it.each(cases)('for %s', async (_, args, message) => {
    const { code, stdout, stderr } = await run(['serve', ...args()]);
    const printed = stdout + stderr;
    expect(printed.replaceAll('\n', ' ')).toMatch(message);
    expect(printed).not.toMatch(/\n\s+at /);
    expect(code).toBe(2);
  });

  it('for an unknown command, and names those there are', async () => {
    const { code, stderr } = await run(['nope']);
    expect(stderr).toMatch(/config\.invalid-option.*'nope'.*serve, chat, complete, explain/);
    expect(code).toBe(2);
  });

  it('for a bad environment variable', async () => {
    const failure = await serve([], { TENON_CPU_ISA: 'sse9' }).catch((error: Error) => error.message);
    expect(failure).toMatch(/TENON_CPU_ISA.*sse9/);
  });
});

describe('a running server', () => {
  let server: ServeProcess;
  beforeAll(async () => {
    server = await serve([]);
  });
  afterAll(() => server[Symbol.asyncDispose]());
  const post = async (path: string, body: unknown) => {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${server.url}${path}`, { method: 'POST', headers, body: text });
    const { error } = (await response.json()) as {
      error: { message: string; param: string | null; code: number };
    };
    return { status: response.status, ...error };
  };

  it('names what is wrong with a request, and goes on', async () => {
    const chat = '/v1/chat/completions';
    const messages = [{ role: 'user', content: 'Hello' }];
    expect(await post(chat, '{"messages": ')).toMatchObject({ status: 400, code: 400 });
    expect(await post(chat, { messages: 'Hello' })).toMatchObject({ status: 400, param: 'messages' });
    expect(await post(chat, { messages, temperature: 'hot' })).toMatchObject({
      status: 400,
      param: 'temperature',
    });
    expect(await post(chat, { messages, temperature: 3 })).toMatchObject({
      status: 400,
      param: 'temperature',
    });
    expect(await post(chat, { messages, model: 'gpt-9' })).toMatchObject({ status: 404 });
    expect(await post(chat, { messages, response_format: { type: 'json_object' } })).toMatchObject({
      status: 400,
      param: 'response_format',
    });
    expect(await post(chat, { messages, store: true })).toMatchObject({ status: 400, param: 'store' });
    expect(await post('/v1/completions', { prompt: [4096] })).toMatchObject({
      status: 400,
      message: expect.stringMatching(/4096/),
    });
    const long = await post('/v1/completions', { prompt: 'word '.repeat(2000) });
    expect(long).toMatchObject({ status: 400, message: expect.stringMatching(/\d{4}.*1024|1024.*\d{4}/) });
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });
});
