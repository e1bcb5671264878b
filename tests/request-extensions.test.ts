/** What packages add to requests, on the embedded model: logits processors and tool parsers, by the examples and the openai client. */
import { fileURLToPath } from 'node:url';
import { LLM } from '@tenon/core';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, serve, type ServeProcess } from './serve-process.js';

const folder = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const digits = folder('../plugins-template/examples/logits-processor-example');
const lines = folder('../plugins-template/examples/tool-parser-example');
/** A logits processor that makes the model say what a test wants. */
const say = folder('fixtures/say-processor');
const stories = folder('../packages/model-stories/model');

const prompt = 'Once upon a time there were';
const greedy = { model: 'stories', prompt, max_tokens: 12, temperature: 0 };
const parameters = { type: 'object', properties: { city: { type: 'string' } } };
const question = {
  model: 'stories',
  messages: [{ role: 'user' as const, content: 'What is the weather?' }],
  tools: [{ type: 'function' as const, function: { name: 'weather', parameters } }],
};
/** Fields that the client's types do not know go along in the body. */
const saying = (text: string) => ({ vllm_xargs: { say: text } });
const toolCall = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>';

const startServer = (parser: string) =>
  serve([
    stories,
    '--served-model-name', 'stories',
    '--logits-processors', 'only-digits', 'say',
    '--enable-auto-tool-choice',
    '--tool-call-parser', parser,
    '--plugin', digits, say, lines,
  ]); // prettier-ignore

let server: ServeProcess;
let client: OpenAI;
beforeAll(async () => {
  server = await startServer('hermes');
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
afterAll(() => server[Symbol.asyncDispose]());

async function complete(fields: object = {}): Promise<string> {
  const { choices } = await client.completions.create({ ...greedy, ...fields, stream: false });
  return choices.map(({ text }) => text).join();
}

describe('a logits processor of a package', () => {
  it('decides the answers of requests that ask for it, and no others beside them', async () => {
    const plain = await complete();
    expect(plain).not.toMatch(/[0-9]/);
    const [number, numbers, other] = await Promise.all([
      complete({ vllm_xargs: { only_digits: 4 } }),
      complete({ vllm_xargs: { only_digits: 3 }, n: 4, temperature: 1, seed: 1 }),
      complete(),
    ]);
    expect(number).toMatch(/^[0-9]{1,4}$/);
    expect(numbers).toMatch(/^[0-9]{1,3}(,[0-9]{1,3}){3}$/);
    expect(other).toBe(plain);
  });

  it('decides streams too', async () => {
    let text = '';
    const body = { ...greedy, stream: true, vllm_xargs: { only_digits: 5 } } as const;
    for await (const chunk of await client.completions.create(body)) text += chunk.choices[0]?.text ?? '';
    expect(text).toBe(await complete({ vllm_xargs: { only_digits: 5 } }));
  });

  it('refuses arguments with its own words, as a 400, streaming or not', async () => {
    for (const stream of [false, true]) {
      await expect(client.completions.create({ ...greedy, stream, vllm_xargs: { only_digits: 0 } } as typeof greedy)).rejects.toMatchObject({
        status: 400,
        param: 'vllm_xargs',
        message: expect.stringContaining('only_digits is 0; expected a number of digits') as string,
      });
    }
  }); // prettier-ignore

  it('is there for the library', async () => {
    await using llm = await LLM.load(stories, { plugins: [digits], logitsProcessors: ['only-digits'] });
    const [output] = await llm.generate(prompt, { temperature: 0, extraArgs: { only_digits: 4 } });
    expect(output!.outputs[0]).toMatchObject({ text: await complete({ vllm_xargs: { only_digits: 4 } }) });
    await expect(llm.generate(prompt, { extraArgs: { digits: 4 } })).rejects.toMatchObject({
      code: 'request.invalid-value',
      param: 'extraArgs',
    });
  });
});

describe('tool calls of a real model', () => {
  const expected = {
    finish_reason: 'tool_calls',
    message: {
      content: 'I look.',
      tool_calls: [{ type: 'function', function: { name: 'weather', arguments: '{"city": "Oslo"}' } }],
    },
  };

  it('are found in its text, whole and streamed', async () => {
    const body = { ...question, ...saying(`I look.\n${toolCall}`) };
    expect((await client.chat.completions.create(body)).choices[0]).toMatchObject(expected);
    const final = await client.chat.completions.stream(body).finalChatCompletion();
    expect(final.choices[0]).toMatchObject(expected);
  });

  it('are found by the parser of a package', async () => {
    await using other = await startServer('call-lines');
    const body = { ...question, ...saying('I look.\ncall weather {"city": "Oslo"}') };
    const own = new OpenAI({ baseURL: `${other.url}/v1`, apiKey: 'none', maxRetries: 0 });
    const [choice] = (await own.chat.completions.create(body)).choices;
    expect(choice).toMatchObject({ ...expected, message: { ...expected.message, content: 'I look.\n' } });
  });
});

it.each([
  [['--logits-processors', 'only-digit'], /\[config.extension-not-found\]: no logits processor 'only-digit'; found: .*only-digits \(tenon-logits-processor-example\)/],
  [['--enable-auto-tool-choice'], /\[config.invalid-option\]: --enable-auto-tool-choice needs --tool-call-parser/],
  [['--tool-call-parser', 'hermez'], /\[config.extension-not-found\]: no tool parser 'hermez'; found: call-lines .*built in: hermes, llama3_json/],
])('no server starts with %j', async (args, message) => {
  const { code, stderr } = await run(['serve', ...args, '--port', '0', '--plugin', digits, lines]);
  expect(code).toBe(2);
  expect(stderr).toMatch(message);
}); // prettier-ignore
