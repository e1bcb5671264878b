/** A step that never ends: health turns red, requests fail, and nothing is left running. */
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createNullBackend } from '../src/conformance/null-backend.js';
import { createEngine, type EngineHost } from '../src/container.js';
import type { EngineOptions } from '../src/config/engine-options.js';
import { LLM } from '../src/llm.js';
import { resolveSamplingParams } from '../src/sampling/resolve-sampling-params.js';
import { createApp } from '../src/server/app.js';

const stories = join(import.meta.dirname, '../../model-stories/model');
const plugin = join(import.meta.dirname, 'cli/fixtures/null-backend');
const hanging: EngineHost = {
  backend: createNullBackend({
    neverSample: [0, 2],
    inject: (stepId) => (stepId === 3 ? 'hang' : undefined),
  }),
};
afterEach(() => {
  delete process.env['NULL_FAULT'];
});

const setups: [string, EngineOptions, EngineHost][] = [
  ['in this thread', {}, hanging],
  ['in its own thread', { device: 'null', plugins: [plugin] }, {}],
];

describe.each(setups)('a hanging step %s', (_, options, host) => {
  it('turns health red within 5 s and fails what runs and waits', async () => {
    process.env['NULL_FAULT'] = 'hang';
    const { engine } = await createEngine(stories, { ...options, stepTimeout: 0.5, maxNumSeqs: 2 }, host);
    const app = await createApp({ engine, options: { disableDocs: true } });
    const deaths: string[] = [];
    engine.onDeath(({ code }) => deaths.push(code));
    const complete = () =>
      app.inject({
        method: 'POST',
        url: '/v1/completions',
        payload: { prompt: 'Once', max_tokens: 100, ignore_eos: true },
      });
    expect((await app.inject('/health')).statusCode).toBe(200);
    const startMs = performance.now();
    const answers = await Promise.all([complete(), complete(), complete()]);
    expect(performance.now() - startMs).toBeLessThan(5000);
    for (const answer of answers) {
      expect(answer.statusCode).toBe(500);
      expect(answer.json()).toMatchObject({
        error: {
          tenon_code: 'backend.device-lost',
          message: expect.stringMatching(/^device null:0 is lost: a step has not ended within 0\.5 s/),
        },
      });
    }
    const health = await app.inject('/health');
    expect(health.statusCode).toBe(503);
    expect(health.body).toContain('has not ended within 0.5 s');
    expect((await complete()).json()).toMatchObject({ error: { tenon_code: 'backend.device-lost' } });
    expect(deaths).toEqual(['backend.device-lost']);

    const before = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 300));
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1e6).toBeLessThan(0.05);
    await engine.close();
  });

  it('does not keep close waiting, once it is noticed', async () => {
    process.env['NULL_FAULT'] = 'hang';
    const { engine } = await createEngine(stories, { ...options, stepTimeout: 0.5 }, host);
    const params = resolveSamplingParams({ maxTokens: 100 }, {}, engine.info);
    const stream = engine.generate({ requestId: 'r', prompt: { tokenIds: [1, 2, 3] }, params });
    await stream[Symbol.asyncIterator]().next();
    const startMs = performance.now();
    await engine.close();
    expect(performance.now() - startMs).toBeLessThan(3000);
  }, 10_000);
});

describe('a slow step', () => {
  it('is no hang, while steps end in time', async () => {
    const backend = createNullBackend({ stepMs: 200, neverSample: [0, 2] });
    await using llm = await LLM.load(stories, { stepTimeout: 0.5 }, { backend });
    const [output] = await llm.generate('Once', { maxTokens: 8 });
    expect(output!.outputs[0]!.tokenIds).toHaveLength(8);
    expect(llm.engine.health()).toEqual({ ok: true });
  });
});
