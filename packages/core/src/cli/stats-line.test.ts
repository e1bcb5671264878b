import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { EngineStats, StepObservation } from '../engine/types.js';
import { watchStats } from './stats-line.js';

const idle: EngineStats = {
  numRunning: 0, numWaiting: 0, numFreeBlocks: 100, numUsedBlocks: 0, numBlocks: 100, kvCacheUsage: 0, numPreemptionsTotal: 0,
  prefixCacheQueriesTotal: 0, prefixCacheHitsTotal: 0, numPromptTokensTotal: 0, numGenerationTokensTotal: 0, numStepsTotal: 0, numPreemptedEndsTotal: 0,
  numStepsInFlight: 0, numRestartsTotal: 0,
}; // prettier-ignore

class FakeEngine {
  current: EngineStats = idle;
  #listener: (step: StepObservation) => void = () => {};
  stats = (): EngineStats => this.current;
  onStep = (listener: (step: StepObservation) => void): void => void (this.#listener = listener);

  step(stats: Partial<EngineStats>): void {
    this.current = { ...this.current, ...stats };
    this.#listener({ numTokens: 1, numSeqs: 1, computeMicros: 0, idleMicros: 0, interTokenMs: [] });
  }
}

let engine: FakeEngine;
let lines: string[];

beforeEach(() => {
  vi.useFakeTimers();
  engine = new FakeEngine();
  lines = [];
  watchStats(engine, (line) => lines.push(line), 5000);
});
afterEach(() => void vi.useRealTimers());

it('says nothing and runs no timer before the first step', () => {
  expect(vi.getTimerCount()).toBe(0);
  vi.advanceTimersByTime(60_000);
  expect(lines).toEqual([]);
});

it('tells rates since the last line while there is work, and stops when there is none', () => {
  engine.step({
    numRunning: 3, numWaiting: 1, numPromptTokensTotal: 1000, kvCacheUsage: 0.125, prefixCacheQueriesTotal: 1000,
    prefixCacheHitsTotal: 400, numGenerationTokensTotal: 3,
  }); // prettier-ignore
  vi.advanceTimersByTime(5000);
  engine.step({ numRunning: 2, numWaiting: 0, numGenerationTokensTotal: 503, kvCacheUsage: 0.004 });
  vi.advanceTimersByTime(5000);
  expect(lines).toEqual([
    'running 3, waiting 1; prompt 200, generation 0.6 tokens/s; KV cache 13 %, prefix hits 40 %',
    'running 2, waiting 0; prompt 0.0, generation 100 tokens/s; KV cache 0.4 %',
  ]);
  engine.step({ numRunning: 0, kvCacheUsage: 0 });
  vi.advanceTimersByTime(5000);
  expect(lines[2]).toBe('running 0, waiting 0; prompt 0.0, generation 0.0 tokens/s; KV cache 0 %');
  expect(vi.getTimerCount()).toBe(0);
  vi.advanceTimersByTime(60_000);
  expect(lines).toHaveLength(3);
});

it('counts the time from the first step after idle time', () => {
  engine.step({ numGenerationTokensTotal: 10 });
  vi.advanceTimersByTime(5000);
  vi.advanceTimersByTime(600_000);
  engine.step({ numRunning: 1, numGenerationTokensTotal: 110 });
  vi.advanceTimersByTime(5000);
  expect(lines[1]).toContain('generation 20 tokens/s');
});

it('goes on while requests run and no step ends', () => {
  engine.step({ numRunning: 1 });
  vi.advanceTimersByTime(15_000);
  expect(lines).toHaveLength(3);
});
