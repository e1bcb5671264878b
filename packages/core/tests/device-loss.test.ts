/** A device that is lost while it serves: what had begun fails, what waits is kept for the next core. */
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BackendFailure, BackendModule, DeviceGroup } from '../src/backend/index.js';
import { createNullBackend } from '../src/conformance/null-backend.js';
import { TenonError } from '../src/errors.js';
import { LLM } from '../src/llm.js';
import { expectedTokens } from './support/history-model.js';
import { TestEngine, type TestEngineOptions } from './support/test-engine.js';

const promptOf = (length: number, salt = 0) =>
  Array.from({ length }, (_, i) => (i * 7 + salt * 131 + 3) % 1000);
const lost: BackendFailure = { code: 'backend.device-lost', message: 'it fell off the bus' };
const lossMessage = 'device test:0 is lost: it fell off the bus; the engine restarts: send the request again';

/** The first core loses its device in its third step. */
const losing = (options: TestEngineOptions = {}): TestEngine =>
  new TestEngine({
    maxNumSeqs: 1,
    failureOf: (stepId, numCoresBefore) => (numCoresBefore === 0 && stepId === 3 ? lost : undefined),
    restart: {},
    ...options,
  });

/** A restart that waits for its release. */
class Gate {
  open: () => void = () => {};
  readonly passed = new Promise<void>((resolve) => (this.open = resolve));
}

const untilRed = (engine: TestEngine) =>
  expect.poll(() => engine.client.health().ok, { interval: 1 }).toBe(false);
const equals = (a: Int32Array, b: Int32Array) =>
  a.length === b.length && a.every((value, i) => value === b[i]);
const codeOf = (result: PromiseSettledResult<unknown>) =>
  result.status === 'rejected' ? (result.reason as TenonError).code : 'answered';

describe('a lost device', () => {
  it('fails what had begun, and answers what waited, in its order', async () => {
    const gate = new Gate();
    const engine = losing({ restart: { beforeStart: () => gate.passed } });
    const requests = [1, 2, 3, 4].map((salt) => engine.run(promptOf(9, salt), { maxTokens: 12 }));
    await expect(requests[0]).rejects.toMatchObject({ code: 'backend.device-lost', message: lossMessage });
    expect(engine.client.health()).toEqual({ ok: false, reason: lossMessage, isRestarting: true });
    expect(engine.client.stats()).toMatchObject({
      numRunning: 0,
      numWaiting: 3,
      numUsedBlocks: 0,
      numRestartsTotal: 0,
    });
    const late = engine.run(promptOf(9, 5), { maxTokens: 12 });
    gate.open();
    const answers = await Promise.all([...requests.slice(1), late]);
    answers.forEach((answer, i) => {
      expect(answer.outputs[0]!.tokenIds).toEqual(expectedTokens(promptOf(9, i + 2), 12, 1000));
    });
    expect(engine.begun).toEqual([[1], [2, 3, 4, 5]]);
    expect(engine.client.health()).toEqual({ ok: true });
    await engine.idle();
    expect(engine.client.stats()).toMatchObject({
      numRunning: 0,
      numWaiting: 0,
      numUsedBlocks: 0,
      numRestartsTotal: 1,
    });
    expect(engine.log).toEqual([
      `warn: the engine restarts, 3 requests wait for it: it fell off the bus`,
      expect.stringMatching(/^info: the engine is back on test:0 after \d+\.\d s$/),
    ]);
  });

  it('counts on over the cores', async () => {
    const engine = losing({ maxNumSeqs: 8 });
    await expect(engine.run(promptOf(9), { maxTokens: 12 })).rejects.toThrow(lossMessage);
    await engine.run(promptOf(9), { maxTokens: 12 });
    await engine.idle();
    const stats = engine.client.stats();
    expect(stats.numStepsTotal).toBeGreaterThan(12);
    expect(stats.prefixCacheQueriesTotal).toBe(18);
  });

  it('keeps the order of priorities', async () => {
    const engine = losing({ priorityScheduling: true });
    const priorities = [0, 3, 1, 2, 1];
    const runs = priorities.map((priority, i) =>
      engine.run(promptOf(9, i), { maxTokens: 5 }, { priority }).catch(() => undefined),
    );
    await Promise.all(runs);
    expect(engine.begun).toEqual([[1], [3, 5, 4, 2]]);
  });

  it('fails a request of which only some sequences had begun', async () => {
    const engine = losing({ maxNumSeqs: 2 });
    const results = await Promise.allSettled([
      engine.run(promptOf(9, 1), { maxTokens: 12, n: 4 }),
      engine.run(promptOf(9, 2), { maxTokens: 12, n: 2 }),
    ]);
    expect(results.map(codeOf)).toEqual(['backend.device-lost', 'answered']);
    expect(engine.begun[0]!.length).toBeLessThan(4);
    expect(engine.begun[1]).toEqual([5, 6]);
    await engine.idle();
    expect(engine.client.stats()).toMatchObject({ numUsedBlocks: 0, numWaiting: 0, numRunning: 0 });
  });

  it.each([
    [
      'a step that hangs',
      'backend.device-lost',
      /^device test:0 is lost: a step has not ended within 0\.02 s/,
    ],
    ['a thread that dies', 'internal.engine-died', /^crashed; the engine restarts: send the request again$/],
  ])('is also %s', async (kind, code, message) => {
    const hangs = kind === 'a step that hangs';
    const engine = losing({
      stepTimeoutMs: 20,
      failureOf: (stepId, before) => {
        if (before > 0 || stepId !== 3) return undefined;
        if (!hangs) engine.die(new TenonError('internal.engine-died', 'crashed'));
        return 'hang';
      },
    });
    const results = Promise.allSettled(
      [1, 2].map((salt) => engine.run(promptOf(9, salt), { maxTokens: 50 })),
    );
    expect((await results).map(codeOf)).toEqual([code, 'answered']);
    expect(((await results)[0] as PromiseRejectedResult).reason.message).toMatch(message);
    expect(engine.client.health().ok).toBe(true);
    await engine.client.close();
  });

  it('lets waiting requests be aborted, by signal or by leaving', async () => {
    const gate = new Gate();
    const engine = losing({ restart: { beforeStart: () => gate.passed } });
    const first = engine.run(promptOf(9, 1), { maxTokens: 12 }).catch(() => undefined);
    const controller = new AbortController();
    const aborted = engine.run(promptOf(9, 2), { maxTokens: 12 }, { signal: controller.signal });
    const left = engine.client.generate(
      engine.request(promptOf(9, 3), { maxTokens: 12, outputKind: 'final' }),
    );
    const pending = left.next();
    const last = engine.run(promptOf(9, 4), { maxTokens: 12 });
    await first;
    controller.abort();
    expect((await aborted).outputs[0]).toMatchObject({ tokenIds: [], finishReason: 'abort' });
    await left.return();
    expect((await pending).done).toBe(true);
    expect(engine.client.stats().numWaiting).toBe(1);
    gate.open();
    expect((await last).finished).toBe(true);
    expect(engine.begun).toEqual([[1], [4]]);
  });

  it('is no obstacle to resetting the prefix cache', async () => {
    const gate = new Gate();
    const engine = losing({ restart: { beforeStart: () => gate.passed } });
    await engine.run(promptOf(9), { maxTokens: 12 }).catch(() => undefined);
    await engine.client.resetPrefixCache();
    gate.open();
    expect((await engine.run(promptOf(9), { maxTokens: 12 })).numCachedTokens).toBe(0);
  });

  it('takes no more requests meanwhile than may wait', async () => {
    const gate = new Gate();
    const engine = losing({ maxNumWaitingRequests: 3, restart: { beforeStart: () => gate.passed } });
    await engine.run(promptOf(9), { maxTokens: 12 }).catch(() => undefined);
    const waiting = [1, 2, 3].map((salt) => engine.run(promptOf(9, salt), { maxTokens: 3 }));
    await expect(engine.run(promptOf(9))).rejects.toMatchObject({ code: 'capacity.queue-full' });
    gate.open();
    for (const { finished } of await Promise.all(waiting)) expect(finished).toBe(true);
  });

  it('does not keep close waiting, which fails what waits', async () => {
    const engine = losing({ restart: { delaysMs: [600_000] } });
    const requests = Promise.allSettled(
      [1, 2].map((salt) => engine.run(promptOf(9, salt), { maxTokens: 12 })),
    );
    await untilRed(engine);
    const startMs = performance.now();
    await engine.client.close({ timeoutMs: 20 });
    expect(performance.now() - startMs).toBeLessThan(1000);
    expect((await requests).map(codeOf)).toEqual(['backend.device-lost', 'capacity.shutting-down']);
    expect(engine.begun).toHaveLength(1);
  });

  it('may come back while close lets requests finish', async () => {
    const gate = new Gate();
    const engine = losing({ restart: { beforeStart: () => gate.passed } });
    const requests = Promise.allSettled(
      [1, 2].map((salt) => engine.run(promptOf(9, salt), { maxTokens: 12 })),
    );
    await untilRed(engine);
    const closing = engine.client.close({ timeoutMs: 5000 });
    gate.open();
    expect((await requests).map(codeOf)).toEqual(['backend.device-lost', 'answered']);
    await closing;
  });
});

describe('a device that stays lost', () => {
  it('is tried a few times, then everything fails', async () => {
    const engine = losing({
      restart: {
        beforeStart: () => {
          throw new TenonError('config.device-not-found', 'no device test:0');
        },
      },
    });
    const deaths: string[] = [];
    engine.client.onDeath(({ message }) => deaths.push(message));
    const results = await Promise.allSettled(
      [1, 2].map((salt) => engine.run(promptOf(9, salt), { maxTokens: 12 })),
    );
    expect(results.map(codeOf)).toEqual(['backend.device-lost', 'backend.device-lost']);
    const reason =
      'device test:0 is lost: it did not come back in 5 attempts: no device test:0; the engine has ended: restart it';
    expect(engine.client.health()).toEqual({ ok: false, reason });
    expect(() => engine.stream(promptOf(9))).toThrow(reason);
    expect(deaths).toEqual([reason]);
    expect(engine.log.filter((line) => line.includes('attempt'))).toHaveLength(5);
    await engine.client.close();
  });

  it('is given up also where it starts well and computes nothing', async () => {
    const engine = losing({ failureOf: () => lost });
    const results = await Promise.allSettled(
      Array.from({ length: 9 }, (_, salt) => engine.run(promptOf(9, salt), { maxTokens: 12 })),
    );
    expect(results.map(codeOf)).toEqual(Array(9).fill('backend.device-lost'));
    expect(engine.begun).toEqual([[1], [2], [3], [4], [5], [6]]);
    expect(engine.client.health().isRestarting).toBeUndefined();
  });
});

describe('any number of losses', () => {
  /** Each core is lost in its n-th step, in one of three ways, and each start may fail; requests of several kinds arrive at any time. */
  const arrivals = fc.array(
    fc.record({
      afterMs: fc.integer({ min: 0, max: 4 }),
      promptLength: fc.integer({ min: 1, max: 30 }),
      n: fc.integer({ min: 1, max: 3 }),
      maxTokens: fc.integer({ min: 1, max: 12 }),
      priority: fc.integer({ min: 0, max: 1 }),
      abortAfterMs: fc.option(fc.integer({ min: 0, max: 10 }), { freq: 4 }),
    }),
    { minLength: 1, maxLength: 25 },
  );
  const losses = fc.array(fc.record({ atStep: fc.integer({ min: 2, max: 12 }), hangs: fc.boolean() }), {
    maxLength: 4,
  });

  it('loses no request, answers none twice, and keeps their order', async () => {
    await fc.assert(
      fc.asyncProperty(arrivals, losses, async (requests, plan) => {
        const engine = new TestEngine({
          maxNumSeqs: 3,
          numBlocks: 24,
          maxModelLen: 64,
          stepTimeoutMs: 12,
          priorityScheduling: true,
          failureOf: (stepId, numCoresBefore) => {
            const loss = plan[numCoresBefore];
            if (stepId !== loss?.atStep) return undefined;
            return loss.hangs ? 'hang' : lost;
          },
          restart: { beforeStart: () => new Promise((resolve) => setTimeout(resolve, 1)) },
        });
        const outcomes: Promise<string>[] = [];
        for (const [
          salt,
          { afterMs, promptLength, n, maxTokens, priority, abortAfterMs },
        ] of requests.entries()) {
          if (afterMs > 2) await new Promise((resolve) => setTimeout(resolve, afterMs - 2));
          const prompt = promptOf(promptLength, salt);
          const signal = abortAfterMs === null ? undefined : AbortSignal.timeout(abortAfterMs);
          const run = engine.run(prompt, { maxTokens, n, outputKind: 'final' }, { priority, signal });
          outcomes.push(
            run.then(
              (output) => {
                for (const { tokenIds, finishReason } of output.outputs) {
                  const expected = expectedTokens(prompt, maxTokens, 1000);
                  const isAborted = finishReason === 'abort';
                  expect(tokenIds).toEqual(isAborted ? expected.slice(0, tokenIds.length) : expected);
                }
                return 'answered';
              },
              (error: TenonError) => error.code,
            ),
          );
        }
        const ends = await Promise.all(outcomes);
        const begun = engine.begun.flat();
        for (const [salt, outcome] of ends.entries()) {
          expect(['answered', 'backend.device-lost', 'request.aborted']).toContain(outcome);
          if (outcome !== 'backend.device-lost') continue;
          const prompt = Int32Array.from(promptOf(requests[salt]!.promptLength, salt));
          const failed = [...engine.given.values()].find(({ promptTokenIds }) =>
            equals(promptTokenIds, prompt),
          );
          expect(begun).toContain(failed!.firstSequenceId);
        }
        expect(new Set(begun).size).toBe(begun.length);
        for (const ids of engine.begun) {
          for (const priority of [0, 1]) {
            const ofPriority = ids.filter((id) => engine.given.get(id)?.priority === priority);
            expect(ofPriority).toEqual(ofPriority.toSorted((a, b) => a - b));
          }
        }
        const ended = engine.finished.map(({ requestId }) => requestId);
        expect(new Set(ended).size).toBe(ended.length);
        await engine.idle();
        await expect
          .poll(() => engine.client.stats(), { interval: 1 })
          .toMatchObject({ numRunning: 0, numWaiting: 0, numUsedBlocks: 0 });
        await engine.client.close();
      }),
      { numRuns: 60 },
    );
  }, 60_000);
});

/** Notes every device group that is opened. */
function watchGroups(module: BackendModule, groups: WeakRef<DeviceGroup>[]): BackendModule {
  return {
    ...module,
    create: (host) => {
      const backend = module.create(host);
      const open = backend.open.bind(backend);
      backend.open = async (...args) => {
        const group = await open(...args);
        groups.push(new WeakRef(group));
        return group;
      };
      return backend;
    },
  };
}

async function numInMemory(objects: readonly WeakRef<object>[]): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  // What a turn has looked at stays for that turn.
  await new Promise((resolve) => setTimeout(resolve, 10));
  collect();
  return objects.filter((object) => object.deref() !== undefined).length;
}

describe('twenty losses in a row', () => {
  it('leave the queue in order, the sizes as they were, and nothing of the lost ones in memory', async () => {
    let numLosses = 0;
    const groups: WeakRef<DeviceGroup>[] = [];
    const backend = createNullBackend({
      neverSample: [0, 1, 2],
      inject: (stepId) => (stepId === 3 && numLosses++ < 20 ? lost : undefined),
    });
    const stories = join(import.meta.dirname, '../../model-stories/model');
    await using llm = await LLM.load(
      stories,
      { restartOnDeviceLoss: true, maxNumSeqs: 2, maxModelLen: 'auto', skipTokenizerInit: true },
      { backend: watchGroups(backend, groups) },
    );
    const ended: number[] = [];
    // The errors themselves are let go: the stack of an unread one refers to what threw it.
    const codes = await Promise.all(
      Array.from({ length: 60 }, (_, i) =>
        llm
          .generate([[3, 4, 5 + i]], { maxTokens: 8 })
          .then(
            () => 'answered',
            ({ code }: TenonError) => code,
          )
          .finally(() => ended.push(i)),
      ),
    );
    expect(codes).toEqual([...Array(40).fill('backend.device-lost'), ...Array(20).fill('answered')]);
    expect(ended).toEqual(ended.toSorted((a, b) => a - b));
    expect(llm.engine.stats()).toMatchObject({
      numRestartsTotal: 20,
      numWaiting: 0,
      numRunning: 0,
      numUsedBlocks: 0,
    });
    expect(llm.engine.health()).toEqual({ ok: true });
    expect(await numInMemory(groups)).toBe(1);
    expect(groups).toHaveLength(21);
  });
});
