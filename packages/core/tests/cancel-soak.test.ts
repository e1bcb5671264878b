/** Thousands of requests that are cancelled at any time, under preemption: each ends once, and every block comes back. */
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createNullBackend } from '../src/conformance/null-backend.js';
import { createEngine } from '../src/container.js';
import type { Engine, FinishedRequest } from '../src/engine/types.js';
import { resolveSamplingParams } from '../src/sampling/resolve-sampling-params.js';
import { createApp } from '../src/server/app.js';

const stories = join(import.meta.dirname, '../../model-stories/model');
const numRequests = 2000;
const concurrency = 64;

/** Numbers in [0, 1) that are the same in every run. */
function randomSource(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** `work(i)` for all i, some at a time. */
async function runAll(work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < numRequests) await work(next++);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
}

const untilIdle = (engine: Engine) =>
  expect
    .poll(() => {
      const { numRunning, numWaiting, numStepsInFlight } = engine.stats();
      return [numRunning, numWaiting, numStepsInFlight];
    })
    .toEqual([0, 0, 0]);

function expectAllFreed(engine: Engine): void {
  const { numFreeBlocks, numUsedBlocks, numBlocks, numPreemptionsTotal } = engine.stats();
  expect(numUsedBlocks).toBe(0);
  expect(numFreeBlocks + numUsedBlocks).toBe(numBlocks);
  expect(numPreemptionsTotal).toBeGreaterThan(50);
}

describe('2 000 requests with random cancels', () => {
  let engine: Engine;
  let finished: FinishedRequest[];
  beforeEach(async () => {
    // Fewer blocks than the running sequences want, so that some are always preempted.
    ({ engine } = await createEngine(
      stories,
      { numGpuBlocksOverride: 40, maxModelLen: 512, maxNumSeqs: 32, blockSize: 16, watermark: 0 },
      { backend: createNullBackend({ neverSample: [0, 1, 2], constraints: { blockSizes: [16] } }) },
    ));
    finished = [];
    engine.onRequestFinished((request) => finished.push(request));
  });
  afterEach(() => engine.close());

  it('through the engine', async () => {
    const random = randomSource(1);
    const ends = { whole: 0, aborted: 0, left: 0, refused: 0 };
    await runAll(async (i) => {
      const maxTokens = 1 + Math.floor(random() * 60);
      // Beyond maxTokens: not at all.
      const cancelAt = Math.floor(random() * 1.3 * maxTokens);
      const controller = new AbortController();
      const params = resolveSamplingParams(
        { maxTokens, ignoreEos: true, n: 1 + Math.floor(random() * 2), outputKind: 'delta' },
        {},
        engine.info,
      );
      const tokenIds = Array.from({ length: 1 + Math.floor(random() * 100) }, (_, k) => 3 + ((k + i) % 7));
      const request = { requestId: `r${i}`, prompt: { tokenIds }, params, signal: controller.signal };
      const leaves = random() < 0.5;
      if (cancelAt === 0) setTimeout(() => controller.abort(), random() * 5);
      let numTokens = 0;
      try {
        for await (const output of engine.generate(request)) {
          numTokens += output.outputs[0]?.tokenIds.length ?? 0;
          if (output.finished) ends[controller.signal.aborted ? 'aborted' : 'whole']++;
          else if (cancelAt > 0 && numTokens >= cancelAt) {
            if (leaves) {
              ends.left++;
              break;
            }
            controller.abort();
          }
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'request.aborted' });
        ends.refused++;
      }
    });
    const { numStepsTotal } = engine.stats();
    await untilIdle(engine);
    // What was cancelled is not computed any further.
    expect(engine.stats().numStepsTotal - numStepsTotal).toBeLessThan(5);
    expect(ends.whole + ends.aborted + ends.left + ends.refused).toBe(numRequests);
    for (const kind of ['whole', 'aborted', 'left'] as const) expect(ends[kind], kind).toBeGreaterThan(100);
    expect(finished).toHaveLength(numRequests - ends.refused);
    expect(new Set(finished.map(({ requestId }) => requestId)).size).toBe(finished.length);
    expectAllFreed(engine);
  });

  it('over HTTP', async () => {
    const app = await createApp({ engine, options: { disableDocs: true } });
    const url = new URL(await app.listen({ port: 0, host: '127.0.0.1' }));
    const random = randomSource(2);
    const ends = { whole: 0, cancelled: 0 };
    await runAll(async (i) => {
      const cancelsAfterMs = random() < 0.25 ? random() * 8 : Infinity;
      const cancelsAfterEvents = random() < 0.5 ? 1 + Math.floor(random() * 40) : Infinity;
      const body = {
        prompt: Array.from({ length: 1 + Math.floor(random() * 100) }, (_, k) => 3 + ((k + i) % 7)),
        max_tokens: 1 + Math.floor(random() * 60),
        ignore_eos: true,
        stream: random() < 0.8,
      };
      ends[await post(url, body, cancelsAfterMs, cancelsAfterEvents)]++;
    });
    await untilIdle(engine);
    await expect.poll(() => app.tenon.state.numActiveRequests).toBe(0);
    expect(ends.whole + ends.cancelled).toBe(numRequests);
    expect(ends.whole).toBeGreaterThan(100);
    expect(ends.cancelled).toBeGreaterThan(100);
    // Those cancelled before they reached the engine never were its requests.
    expect(finished.length).toBeGreaterThan(ends.whole);
    expect(new Set(finished.map(({ requestId }) => requestId)).size).toBe(finished.length);
    expect(finished.filter(({ finishReason }) => finishReason === 'abort').length).toBeGreaterThan(100);
    expectAllFreed(engine);
    app.server.closeAllConnections();
    await app.close();
  });
});

/** Sends a completion and drops the connection after so many milliseconds or events, unless it has ended by then. */
function post(
  url: URL,
  body: object,
  cancelsAfterMs: number,
  cancelsAfterEvents: number,
): Promise<'whole' | 'cancelled'> {
  return new Promise((resolve, reject) => {
    let isCancelled = false;
    const cancel = (): void => {
      isCancelled = true;
      request.destroy();
    };
    const request = httpRequest(
      new URL('/v1/completions', url),
      { method: 'POST', headers: { 'content-type': 'application/json' } },
      (response) => {
        let numEvents = 0;
        response.on('data', (bytes: Buffer) => {
          numEvents += bytes.toString().split('data: ').length - 1;
          if (numEvents >= cancelsAfterEvents) cancel();
        });
        response.on('end', () => {
          if (response.statusCode === 200) resolve('whole');
          else reject(new Error(`status ${response.statusCode}`));
        });
        response.on('error', (error) => (isCancelled ? resolve('cancelled') : reject(error)));
      },
    );
    request.on('error', (error) => (isCancelled ? resolve('cancelled') : reject(error)));
    request.on('close', () => {
      clearTimeout(timer);
      if (isCancelled) resolve('cancelled');
    });
    const timer = cancelsAfterMs === Infinity ? undefined : setTimeout(cancel, cancelsAfterMs);
    request.end(JSON.stringify(body));
  });
}
