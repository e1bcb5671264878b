/** What packages add besides backends, by the examples: a model's answers are Hugging Face's, a source and a logger serve it. */
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LLM, type EngineOptions } from '@tenon/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { firstWrongToken, logSoftmax, meanDifference, nearTie, type GoldenCase } from './goldens.js';
import { run, serve } from './serve-process.js';

const example = (name: string) =>
  fileURLToPath(new URL(`../plugins-template/examples/${name}-example`, import.meta.url));
const phi3 = fileURLToPath(new URL('fixtures/phi3', import.meta.url));
const cases: readonly GoldenCase[] = JSON.parse(readFileSync(`${phi3}/golden.json`, 'utf8')).cases;
/** Its answers are of rotary frequencies in bfloat16 (packages/core/tests/goldens/README.md). */
const hfOverrides = { rope_frequency_dtype: 'bfloat16' };

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tenon-extensions-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const load = (options: EngineOptions = {}) =>
  LLM.load(phi3, {
    plugins: [example('model')],
    skipTokenizerInit: true,
    device: 'cpu',
    hfOverrides,
    ...options,
  });

describe('a model architecture from a package', () => {
  const greedy = { temperature: 0, maxTokens: 24, ignoreEos: true };
  const prompts = cases.map(({ prompt }) => ({ tokenIds: [...prompt] }));

  it("gives Hugging Face's tokens and logits in float32", async () => {
    await using llm = await load({ dtype: 'float32', maxLogprobs: -1 });
    const outputs = await llm.generate(prompts, { ...greedy, logprobs: -1 });
    for (const [i, one] of cases.entries()) {
      const { tokenIds, logprobs } = outputs[i]!.outputs[0]!;
      expect(tokenIds).toHaveLength(24);
      expect(firstWrongToken(one, tokenIds, nearTie.float32), `case ${i}`).toBeUndefined();
      const expected = logSoftmax(one.last_logits);
      const worst = Math.max(...logprobs![0]!.map((entry) => Math.abs(entry.logprob - expected[entry.tokenId]!))); // prettier-ignore
      expect(worst, `case ${i}`).toBeLessThanOrEqual(1e-3);
    }
  });

  it('gives every token of a prompt its probability in bfloat16, in chunks too', async () => {
    await using llm = await load({ dtype: 'bfloat16', maxNumBatchedTokens: 16, maxNumSeqs: 8 });
    const outputs = await llm.generate(prompts, { ...greedy, maxTokens: 1, promptLogprobs: 1 });
    for (const [i, one] of cases.entries()) {
      const found = outputs[i]!.promptLogprobs!.slice(1).map((entry) => entry![0]!.logprob);
      expect(meanDifference(found, one.prompt_logprobs), `case ${i}`).toBeLessThanOrEqual(0.04);
    }
  });

  it('is missing without the package', async () => {
    await expect(load({ plugins: [] })).rejects.toMatchObject({ code: 'unsupported.architecture' });
  });
});

/** A web server with the model in shelf://tiny/phi3, as the example of a model source wants it. */
async function startShelf(damage: (name: string, bytes: Buffer) => Buffer = (_, bytes) => bytes) {
  const files = new Map(['config.json', 'model.safetensors'].map((name) => [name, readFileSync(join(phi3, name))]));
  const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
  const entries = [...files].map(([name, bytes]) => ({ name, sizeBytes: bytes.length, sha256: sha256(bytes) }));
  const requests: string[] = [];
  const server = createServer(({ url = '' }, response) => {
    requests.push(url);
    const name = /^\/models\/tiny\/phi3\/main\/([\w.]+)$/.exec(url)?.[1] ?? '';
    const bytes = files.get(name);
    if (name === 'shelf.json') response.end(JSON.stringify({ files: entries }));
    else if (bytes === undefined) response.writeHead(404).end();
    else response.end(damage(name, bytes));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const stop = () => new Promise<void>((resolve) => void (server.close(() => resolve()), server.closeAllConnections()));
  return { url: `http://127.0.0.1:${port}/models/`, requests, [Symbol.asyncDispose]: stop };
} // prettier-ignore

const plugins = ['--plugin', example('model'), example('model-source'), example('stat-logger')];
const serveOptions = ['--skip-tokenizer-init', '--dtype', 'float32', '--hf-overrides', JSON.stringify(hfOverrides)]; // prettier-ignore

async function complete(url: string, { prompt }: GoldenCase): Promise<number[]> {
  const body = { prompt, max_tokens: 24, temperature: 0, ignore_eos: true, return_token_ids: true };
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body: JSON.stringify(body) }); // prettier-ignore
  const answer = (await response.json()) as { choices: [{ token_ids: number[] }] };
  return answer.choices[0].token_ids;
}

describe('a server of three packages', () => {
  it('takes the model from the source, answers as Hugging Face does, and logs statistics as CSV', async () => {
    await using shelf = await startShelf();
    const csv = join(folder, 'stats.csv');
    const cache = join(folder, 'cache');
    const loggers = ['--stat-logger', `csv=${csv}`, '--log-stats-interval', '0.1'];
    const args = ['shelf://tiny/phi3', ...serveOptions, '--download-dir', cache, ...loggers, ...plugins];
    await using server = await serve(args, { SHELF_URL: shelf.url });
    for (const one of cases)
      expect(firstWrongToken(one, await complete(server.url, one), nearTie.float32)).toBeUndefined();
    expect(shelf.requests.map((url) => url.split('/').at(-1))).toEqual(['shelf.json', 'config.json', 'model.safetensors']); // prettier-ignore
    expect(readdirSync(join(cache, 'tiny/phi3/main')).toSorted()).toEqual(['config.json', 'model.safetensors']);

    await expect.poll(() => readFileSync(csv, 'utf8').trim().split('\n').at(-1), { timeout: 5000 }).toMatch(/,120$/);
    const [header, ...rows] = readFileSync(csv, 'utf8').trim().split('\n');
    expect(header).toBe('time,model,running,waiting,prompt_tokens_per_second,generation_tokens_per_second,kv_cache_usage,generation_tokens_total'); // prettier-ignore
    expect(rows.at(-1)).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z,shelf:\/\/tiny\/phi3,0,0,/);
  }); // prettier-ignore

  it('does not start with a model that is damaged or not there', async () => {
    await using shelf = await startShelf((name, bytes) => (name === 'config.json' ? bytes : Buffer.from(bytes).fill(1, 999, 1000))); // prettier-ignore
    const start = (model: string) =>
      run(['explain', model, '--download-dir', join(folder, 'other'), ...plugins], { environment: { SHELF_URL: shelf.url } }); // prettier-ignore
    const damaged = await start('shelf://tiny/phi3');
    expect(damaged.code).toBe(2);
    expect(damaged.stderr).toMatch(/^error \[config.download-failed\]: shelf:\/\/tiny\/phi3: model source 'shelf' of tenon-model-source-example: .*model\.safetensors is damaged/m);
    expect(readdirSync(join(folder, 'other/tiny/phi3/main'))).toEqual(['config.json']);
    const absent = await start('shelf://tiny/phi4');
    expect(absent.stderr).toContain("answered 404; check the model's name, --revision and SHELF_URL");
  }); // prettier-ignore

  it.each([
    [['shelv://tiny/phi3'], /\[config.extension-not-found\]: no model source 'shelv'; found: shelf \(tenon-model-source-example\); install/],
    [['--stat-logger', 'cvs'], /\[config.extension-not-found\]: no stat logger 'cvs'; found: csv \(tenon-stat-logger-example\); install/],
    [['--stat-logger', 'csv=/no/such/folder/x.csv'], /\[config.extension-invalid\]: stat logger 'csv' of tenon-stat-logger-example: its create failed: ENOENT/],
  ])('does not start with %j', async (args, message) => {
    const { code, stderr } = await run(['serve', ...args, '--port', '0', ...plugins]);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  }); // prettier-ignore

  it('has the packages of an application too', async () => {
    const app = join(folder, 'app');
    const manifest = JSON.stringify({ dependencies: { 'tenon-model-example': '1.0.0' } });
    mkdirSync(join(app, 'node_modules'), { recursive: true });
    writeFileSync(join(app, 'package.json'), manifest);
    symlinkSync(example('model'), join(app, 'node_modules/tenon-model-example'));
    const options = { skipTokenizerInit: true, device: 'cpu' } as const;
    await using llm = await LLM.load(phi3, options, { root: app });
    expect(llm.engine.info.architecture).toBe('Phi3ForCausalLM');
  });
});

it('is explained by a guide whose command works as it is written', async () => {
  const guide = readFileSync(new URL('../docs/extensions.md', import.meta.url), 'utf8');
  const commands = [...guide.matchAll(/^npx tenon (explain .*)$/gm)].map((match) => match[1]!.split(' '));
  expect(commands.length).toBeGreaterThan(0);
  for (const command of commands) {
    const { code, stdout, stderr } = await run(command);
    expect(stderr).toBe('');
    expect(stdout).toContain('qkv_rope_kv_write');
    expect(code).toBe(0);
  }
});
