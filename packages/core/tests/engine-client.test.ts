import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TenonError } from '../src/errors.js';
import { loadTokenizer } from '../src/tokenizer/load-tokenizer.js';
import type { Tokenizer } from '../src/tokenizer/types.js';
import { openCheckpoint } from '../src/weights/open-checkpoint.js';
import { expectedTokens } from './support/history-model.js';
import { TestEngine } from './support/test-engine.js';

const promptOf = (length: number, salt = 0) =>
  Array.from({ length }, (_, i) => (i * 7 + salt * 131 + 3) % 1000);

describe('EngineClient with token ids', () => {
  it('gives the same tokens as deltas, cumulatively and at the end', async () => {
    const expected = expectedTokens(promptOf(9), 20, 1000);
    const engine = new TestEngine();
    const deltas: number[] = [];
    for await (const output of engine.stream(promptOf(9), { maxTokens: 20, outputKind: 'delta' })) {
      deltas.push(...output.outputs[0]!.tokenIds);
    }
    expect(deltas).toEqual(expected);
    const lengths: number[] = [];
    for await (const output of engine.stream(promptOf(9), { maxTokens: 20, outputKind: 'cumulative' })) {
      expect(expected.slice(0, output.outputs[0]!.tokenIds.length)).toEqual(output.outputs[0]!.tokenIds);
      lengths.push(output.outputs[0]!.tokenIds.length);
    }
    expect(lengths.at(-1)).toBe(20);
    let numOutputs = 0;
    for await (const output of engine.stream(promptOf(9), { maxTokens: 20, outputKind: 'final' })) {
      expect(output).toMatchObject({
        finished: true,
        numCachedTokens: 8,
        outputs: [{ tokenIds: expected, finishReason: 'length' }],
      });
      numOutputs++;
    }
    expect(numOutputs).toBe(1);
  });

  it('merges deltas for a consumer that is slower than the engine', async () => {
    const engine = new TestEngine();
    const stream = engine.client.generate(
      engine.request(promptOf(5), { maxTokens: 30, outputKind: 'delta' }),
    );
    const first = await stream.next();
    await engine.idle();
    const second = await stream.next();
    expect(second.value?.finished).toBe(true);
    expect([...first.value!.outputs[0]!.tokenIds, ...second.value!.outputs[0]!.tokenIds]).toEqual(
      expectedTokens(promptOf(5), 30, 1000),
    );
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });

  it('gathers the sequences of a request, by index', async () => {
    const engine = new TestEngine();
    const output = await engine.run(promptOf(9), { n: 3, maxTokens: 7, outputKind: 'final' });
    expect(output.outputs.map(({ index }) => index)).toEqual([0, 1, 2]);
    for (const { tokenIds } of output.outputs) expect(tokenIds).toEqual(expectedTokens(promptOf(9), 7, 1000));
    expect(engine.finished).toHaveLength(1);
    expect(engine.finished[0]).toMatchObject({
      numPromptTokens: 9,
      numGenerationTokens: 21,
      finishReason: 'length',
    });
  });

  it('says what ended it: end of sequence, or a stop token', async () => {
    const expected = expectedTokens(promptOf(6), 4, 1000);
    const engine = new TestEngine({ eosTokenIds: [expected[2]!, expected[3]!] });
    const byEos = await engine.run(promptOf(6), { maxTokens: 20 });
    expect(byEos.outputs[0]).toMatchObject({
      tokenIds: expected.slice(0, 3),
      finishReason: 'stop',
      stopReason: undefined,
    });
    const ignoring = await engine.run(promptOf(6), { maxTokens: 4, ignoreEos: true });
    expect(ignoring.outputs[0]).toMatchObject({ tokenIds: expected, finishReason: 'length' });
    const byToken = await engine.run(promptOf(6), { maxTokens: 20, stopTokenIds: [expected[1]!] });
    expect(byToken.outputs[0]).toMatchObject({
      tokenIds: expected.slice(0, 2),
      finishReason: 'stop',
      stopReason: expected[1],
    });
  });

  it('reports logprobs of sampled and of prompt tokens', async () => {
    const engine = new TestEngine({ maxNumBatchedTokens: 8 });
    const prompt = promptOf(21);
    const output = await engine.run(prompt, {
      maxTokens: 3,
      logprobs: 2,
      promptLogprobs: 1,
      outputKind: 'final',
    });
    const { tokenIds, logprobs } = output.outputs[0]!;
    expect(logprobs!.map((entries) => entries.map(({ tokenId, rank }) => [tokenId, rank]))).toEqual(
      tokenIds.map((id) => [[id, 1], [id, 1], [(id + 1) % 1000, 2]]), // prettier-ignore
    );
    expect(output.promptLogprobs!.map((entries) => entries?.[0]?.tokenId)).toEqual([
      undefined,
      ...prompt.slice(1),
    ]);
    expect(output.promptLogprobs!.slice(1).every((entries) => entries!.length === 2)).toBe(true);
  });

  it('ends with what there is when the signal aborts, and frees the blocks', async () => {
    const engine = new TestEngine();
    const controller = new AbortController();
    let last;
    for await (const output of engine.stream(
      promptOf(9),
      { maxTokens: 100 },
      { signal: controller.signal },
    )) {
      if (output.outputs[0]!.tokenIds.length >= 5) controller.abort();
      last = output;
    }
    expect(last).toMatchObject({ finished: true, outputs: [{ finishReason: 'abort' }] });
    await engine.idle();
    expect(engine.client.stats()).toMatchObject({ numUsedBlocks: 0, numRunning: 0 });
    await expect(engine.run(promptOf(9), {}, { signal: controller.signal })).rejects.toMatchObject({
      code: 'request.aborted',
    });
    expect(engine.finished.map(({ finishReason }) => finishReason)).toEqual(['abort']);
  });

  it('ends a request whose consumer leaves, also while it waits for the next output', async () => {
    const engine = new TestEngine();
    for await (const output of engine.stream(promptOf(9), { maxTokens: 100 }))
      if (output.outputs.length > 0) break;
    const stream = engine.client.generate(
      engine.request(promptOf(9), { maxTokens: 100, outputKind: 'final' }),
    );
    const pending = stream.next();
    await new Promise((resolve) => setImmediate(resolve));
    await stream.return();
    expect(await pending).toEqual({ done: true, value: undefined });
    await engine.idle();
    expect(engine.client.stats()).toMatchObject({ numUsedBlocks: 0, numRunning: 0, numWaiting: 0 });
    expect(engine.finished.map(({ finishReason }) => finishReason)).toEqual(['abort', 'abort']);
  });

  it('fails what a failed step could have touched, and goes on', async () => {
    const engine = new TestEngine({
      failureOf: (id) => (id === 3 ? { code: 'backend.step-failed', message: 'boom' } : undefined),
    });
    const results = await Promise.allSettled(
      [1, 2].map((salt) => engine.run(promptOf(9, salt), { maxTokens: 20 })),
    );
    expect(results.map((result) => result.status === 'rejected' && result.reason.code)).toEqual([
      'backend.step-failed',
      'backend.step-failed',
    ]);
    expect(engine.client.health().ok).toBe(true);
    const after = await engine.run(promptOf(9, 1), { maxTokens: 5 });
    expect(after.outputs[0]!.tokenIds).toEqual(expectedTokens(promptOf(9, 1), 5, 1000));
    expect(after.numCachedTokens).toBe(0);
  });

  it('turns red and fails everything when the device is lost or the core dies', async () => {
    const lost = new TestEngine({
      maxNumSeqs: 1,
      failureOf: () => ({ code: 'backend.device-lost', message: 'gone' }),
    });
    const results = await Promise.allSettled(
      [1, 2].map((salt) => lost.run(promptOf(9, salt), { maxTokens: 20 })),
    );
    expect(results.map((result) => result.status === 'rejected' && result.reason.code)).toEqual([
      'backend.device-lost',
      'backend.device-lost',
    ]);
    const reason = 'device test:0 is lost: gone; the engine has ended: restart it';
    expect(lost.client.health()).toEqual({ ok: false, reason });
    expect(() => lost.stream(promptOf(3))).toThrow(reason);

    const died = new TestEngine();
    const running = died.run(promptOf(9), { maxTokens: 50 });
    setTimeout(() => died.die(new TenonError('internal.engine-died', 'crashed')), 1);
    await expect(running).rejects.toMatchObject({ code: 'internal.engine-died' });
    expect(died.client.health().ok).toBe(false);
  });

  it('lets running requests finish when it closes, and fails them when the time is up', async () => {
    const patient = new TestEngine();
    const short = patient.run(promptOf(9), { maxTokens: 10 });
    await new Promise((resolve) => setImmediate(resolve));
    const closing = patient.client.close({ timeoutMs: 5000 });
    expect(() => patient.stream(promptOf(3))).toThrow(/shutting down/);
    expect((await short).finished).toBe(true);
    await closing;

    const hasty = new TestEngine();
    const long = hasty.run(promptOf(9), { maxTokens: 100 });
    await new Promise((resolve) => setImmediate(resolve));
    await Promise.all([
      expect(long).rejects.toMatchObject({ code: 'capacity.shutting-down' }),
      hasty.client.close({ timeoutMs: 0 }),
    ]);
  });

  it('refuses prompts that are empty, too long or outside the vocabulary', () => {
    const engine = new TestEngine({ maxModelLen: 16 });
    expect(() => engine.stream([])).toThrow(expect.objectContaining({ code: 'request.prompt-empty' }));
    expect(() => engine.stream(promptOf(16))).toThrow(/16 tokens, but the model's context is 16/);
    expect(() => engine.stream([1, 1000])).toThrow(
      /token 1 of the prompt is 1000; expected an id from 0 to 999/,
    );
    expect(() => engine.stream('text')).toThrow(expect.objectContaining({ code: 'request.no-tokenizer' }));
    expect(() => engine.stream([1], {}, { priority: 3 })).toThrow(
      expect.objectContaining({ param: 'priority' }),
    );
  });

  it('ends every request exactly once, under any mix of aborts, leaving and failures', async () => {
    const plan = fc.record({
      length: fc.integer({ min: 1, max: 40 }),
      maxTokens: fc.integer({ min: 1, max: 30 }),
      n: fc.constantFrom(1, 2),
      fate: fc.constantFrom('run', 'run', 'abort', 'leave'),
      after: fc.integer({ min: 0, max: 8 }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(plan, { minLength: 1, maxLength: 12 }),
        fc.option(fc.integer({ min: 1, max: 30 })),
        async (plans, failing) => {
          const engine = new TestEngine({
            numBlocks: 40,
            failureOf: (id) =>
              id === failing ? { code: 'backend.step-failed', message: 'boom' } : undefined,
          });
          const ends = await Promise.all(
            plans.map(async ({ length, maxTokens, n, fate, after }, i) => {
              const controller = new AbortController();
              let numOutputs = 0;
              try {
                for await (const output of engine.stream(
                  promptOf(length, i),
                  { maxTokens, n, outputKind: 'delta' },
                  { signal: controller.signal },
                )) {
                  if (output.finished) return 'finished';
                  if (numOutputs++ < after) continue;
                  if (fate === 'abort') controller.abort();
                  if (fate === 'leave') break;
                }
                return 'left';
              } catch (error) {
                return (error as TenonError).code;
              }
            }),
          );
          await engine.idle();
          expect(engine.finished.map(({ requestId }) => requestId).toSorted()).toEqual(
            plans.map((_, i) => `r${i}`).toSorted(),
          );
          for (const end of ends) expect(['finished', 'left', 'backend.step-failed']).toContain(end);
          expect(engine.client.stats()).toMatchObject({ numUsedBlocks: 0, numRunning: 0, numWaiting: 0 });
        },
      ),
      { numRuns: 40 },
    );
  });

  it('refuses more requests than may wait, and takes more when some have ended', async () => {
    const engine = new TestEngine({ maxNumSeqs: 2, maxNumWaitingRequests: 3 });
    const results = await Promise.allSettled(
      Array.from({ length: 8 }, (_, i) => engine.run(promptOf(5, i), { maxTokens: 4 })),
    );
    expect(results.map(({ status }) => status)).toEqual([
      ...Array<string>(5).fill('fulfilled'),
      ...Array<string>(3).fill('rejected'),
    ]);
    expect(results[7]).toMatchObject({
      reason: {
        code: 'capacity.queue-full',
        retryAfterSeconds: 1,
        message: expect.stringMatching(/^5 requests run or wait/),
      },
    });
    expect((await engine.run(promptOf(5), { maxTokens: 4 })).finished).toBe(true);
  });

  it('serves three thousand requests at once in seconds', async () => {
    const engine = new TestEngine({ numBlocks: 4096, maxNumSeqs: 256, maxNumBatchedTokens: 2048 });
    const start = performance.now();
    const outputs = await Promise.all(
      Array.from({ length: 3000 }, (_, i) =>
        engine.run(promptOf(8 + (i % 24), i), { maxTokens: 4 + (i % 13), outputKind: 'final' }),
      ),
    );
    outputs.forEach((output, i) => expect(output.outputs[0]!.tokenIds).toHaveLength(4 + (i % 13)));
    expect(performance.now() - start).toBeLessThan(20_000);
    expect(engine.finished).toHaveLength(3000);
    expect(engine.client.stats()).toMatchObject({ numUsedBlocks: 0, numPreemptionsTotal: 0 });
  });
});

describe('EngineClient with text', () => {
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    const checkpoint = await openCheckpoint(join(import.meta.dirname, '../../model-stories/model'));
    tokenizer = (await loadTokenizer(checkpoint.tokenizerSource))!;
  });
  afterAll(() => tokenizer.close());

  const textEngine = () => new TestEngine({ tokenizer, vocabSize: tokenizer.vocabSize });

  it('counts requests whose prompts are still being tokenized', async () => {
    const engine = new TestEngine({
      tokenizer,
      maxNumSeqs: 1,
      maxNumWaitingRequests: 1,
      vocabSize: tokenizer.vocabSize,
    });
    const results = await Promise.allSettled(
      ['a', 'b', 'c'].map((text) => engine.run(text, { maxTokens: 2 })),
    );
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
  });

  it('streams deltas that join to the text of all tokens', async () => {
    const engine = textEngine();
    let text = '';
    const tokenIds: number[] = [];
    for await (const output of engine.stream('Once upon a time', { maxTokens: 60, outputKind: 'delta' })) {
      text += output.outputs[0]!.text;
      tokenIds.push(...output.outputs[0]!.tokenIds);
    }
    expect(tokenIds).toHaveLength(60);
    expect(text).toBe(tokenizer.decode(tokenIds, { skipSpecialTokens: true }));
    const final = await engine.run('Once upon a time', { maxTokens: 60, outputKind: 'final' });
    expect(final.outputs[0]!.text).toBe(text);
  });

  it('cuts at a stop string exactly, streaming or not, and frees the blocks', async () => {
    const engine = textEngine();
    const whole = (await engine.run('Once upon a time', { maxTokens: 60 })).outputs[0]!.text;
    const stop = whole.slice(40, 46);
    const cut = whole.slice(0, whole.indexOf(stop));
    for (const includeStopStrInOutput of [false, true]) {
      let text = '';
      let last;
      for await (const output of engine.stream('Once upon a time', {
        maxTokens: 60,
        stop: [stop],
        includeStopStrInOutput,
        outputKind: 'delta',
      })) {
        text += output.outputs[0]!.text;
        last = output;
      }
      expect(text).toBe(includeStopStrInOutput ? cut + stop : cut);
      expect(last).toMatchObject({ finished: true, outputs: [{ finishReason: 'stop', stopReason: stop }] });
    }
    await engine.idle();
    expect(engine.client.stats()).toMatchObject({ numUsedBlocks: 0, numRunning: 0 });
  });

  it('leaves the text of a stop token out, unless it was asked for', async () => {
    const engine = textEngine();
    const { tokenIds } = (await engine.run('Once upon a time', { maxTokens: 12 })).outputs[0]!;
    const stopTokenIds = [tokenIds[8]!];
    const first = tokenIds.indexOf(tokenIds[8]!);
    const without = (await engine.run('Once upon a time', { maxTokens: 12, stopTokenIds })).outputs[0]!;
    expect(without.tokenIds).toEqual(tokenIds.slice(0, first + 1));
    expect(without.text).toBe(tokenizer.decode(tokenIds.slice(0, first), { skipSpecialTokens: true }));
    const withIt = (
      await engine.run('Once upon a time', { maxTokens: 12, stopTokenIds, includeStopStrInOutput: true })
    ).outputs[0]!;
    expect(withIt.text).toBe(tokenizer.decode(tokenIds.slice(0, first + 1), { skipSpecialTokens: true }));
  });
});
