/** Bodies of the HTTP API, raw or edited, through the whole server and an engine with a model of hashes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { createApp } from '../../packages/core/src/server/app.js';
import { TextTokenizer } from '../../packages/core/src/tokenizer/text-tokenizer.js';
import { tokenizerDefinition } from '../../packages/core/src/tokenizer/tokenizer-source.js';
import { TestEngine } from '../../packages/core/tests/support/test-engine.js';
import { ByteSource } from './byte-source.js';
import { editedJson } from './edited-json.js';
import { require } from './oracle.js';

const sampling = {
  max_tokens: 3, temperature: 0.7, top_p: 0.9, top_k: 5, min_p: 0.1, presence_penalty: 0.5, frequency_penalty: 0.5, seed: 1,
  repetition_penalty: 1.1, n: 2, stop: ['x', 'yz'], stop_token_ids: [5], bad_words: ['a'], logit_bias: { '5': 1.5 }, min_tokens: 1,
  allowed_token_ids: [1, 2, 3, 4, 5], ignore_eos: true, prompt_logprobs: 2, priority: 1, request_id: 'r', cache_salt: 's',
  stream: true, stream_options: { include_usage: true }, truncate_prompt_tokens: 4, skip_special_tokens: false, user: 'u',
  return_token_ids: true, echo: true,
}; // prettier-ignore
const chat = {
  messages: [
    { role: 'system', content: 'a' },
    { role: 'user', content: [{ type: 'text', text: 'hello' }] },
    { role: 'assistant', content: null, tool_calls: [{ id: '1', type: 'function', function: { name: 'f', arguments: '{}' } }] },
    { role: 'tool', tool_call_id: '1', content: 'b' },
  ],
  logprobs: true,
  top_logprobs: 2,
  chat_template: '{{ messages }}',
  chat_template_kwargs: { x: 1 },
  documents: [{ text: 'd' }],
  response_format: { type: 'text' },
}; // prettier-ignore
const routes: readonly (readonly [url: string, body: object])[] = [
  ['/v1/completions', { prompt: 'hello', logprobs: 2, ...sampling }],
  ['/v1/completions', { prompt: [[1, 2, 3], [4]], max_tokens: 2 }],
  ['/v1/completions', { prompt: ['a', 'b'], ...sampling, stream: false }],
  ['/v1/chat/completions', { ...chat, ...sampling }],
  ['/v1/chat/completions', { messages: [{ role: 'user', content: 'hi' }], max_completion_tokens: 2 }],
  ['/tokenize', { prompt: 'hello', add_special_tokens: true, return_token_strs: true }],
  ['/tokenize', { messages: [{ role: 'user', content: 'hi' }], add_generation_prompt: true }],
  ['/detokenize', { tokens: [1, 2, 3] }],
];
/** Not ours: no backend fails here, and nothing shuts down. */
const expectedStatuses: ReadonlySet<number> = new Set([200, 400, 404, 413, 422, 429]);

let app: Promise<FastifyInstance> | undefined;

async function startApp(): Promise<FastifyInstance> {
  const file = join(process.env['FUZZ_FIXTURES']!, 'tokenizers', 'gpt2-like.json');
  const { tokenizerJson } = JSON.parse(readFileSync(file, 'utf8')) as { tokenizerJson: object };
  const definition = tokenizerDefinition({
    kind: 'huggingface',
    tokenizerJson,
    tokenizerConfig: {},
    chatTemplate: '{% for m in messages %}{{ m.content }}{% endfor %}',
  });
  const tokenizer = new TextTokenizer(definition!);
  const { client } = new TestEngine({ tokenizer, vocabSize: tokenizer.vocabSize });
  return createApp({ engine: client, options: { disableDocs: true, trustRequestChatTemplate: true } });
}

export async function fuzz(data: Buffer): Promise<void> {
  app ??= startApp();
  const source = new ByteSource(data);
  const [url, base] = source.pick(routes);
  const isRaw = source.below(8) === 0;
  const payload = isRaw ? Buffer.from(source.rest()) : JSON.stringify(editedJson(base, source));
  if (payload === undefined) return;
  const start = performance.now();
  const { statusCode, body } = await (
    await app
  ).inject({ method: 'POST', url, payload, headers: { 'content-type': 'application/json' } });
  const ms = performance.now() - start;
  require(expectedStatuses.has(statusCode), `${url} answered ${statusCode}: ${body.slice(0, 300)}`);
  require(ms < 3000, `${url} took ${Math.round(ms)} ms`);
  require(!/\bNaN\b|Infinity/.test(
    statusCode === 200 ? body.replaceAll(/"(?:[^"\\]|\\.)*"/g, '') : '',
  ), `a NaN in ${body.slice(0, 300)}`);
  if (statusCode !== 200)
    require(typeof JSON.parse(body).error?.tenon_code ===
      'string', `${url}: an error without a code: ${body}`);
}
