import { describe, expect, it } from 'vitest';

import type { RequestTrace } from './request-trace.js';
import { detailedResult, serveResult } from './serve-metrics.js';

function trace(given: Partial<RequestTrace>): RequestTrace {
  const pieceMs = given.pieceMs ?? [];
  return {
    numPromptTokens: 10,
    numOutputTokens: pieceMs.length,
    startMs: 0,
    pieceMs,
    endMs: pieceMs.at(-1) ?? 0,
    text: 'x',
    error: undefined,
    ...given,
  };
}

const traces = [
  trace({ startMs: 0, pieceMs: [100, 150, 160] }),
  trace({ startMs: 100, pieceMs: [400, 1400], numOutputTokens: 5 }),
  trace({ startMs: 1500, pieceMs: [1600] }),
  trace({ startMs: 0, error: 'status 500' }),
];
const options = {
  durationMs: 2000,
  percentiles: [99],
  metrics: ['ttft', 'tpot', 'itl', 'e2el'],
  goodput: undefined,
} as const;

describe('serveResult', () => {
  const result = serveResult(traces, options);

  it('counts requests and tokens of those that completed, per second of the run', () => {
    expect(result).toMatchObject({
      duration: 2,
      completed: 3,
      failed: 1,
      total_input_tokens: 30,
      total_output_tokens: 9,
      request_throughput: 1.5,
      request_goodput: null,
      output_throughput: 4.5,
      total_token_throughput: 19.5,
    });
  });

  it('times first tokens, tokens after them, gaps and whole answers', () => {
    expect(result['median_ttft_ms']).toBe(100);
    expect(result['mean_ttft_ms']).toBeCloseTo(500 / 3);
    // (160 - 100) / 2 and (1400 - 400) / 4; the answer of one token has none
    expect(result['mean_tpot_ms']).toBe(140);
    expect(result['median_itl_ms']).toBe(50);
    expect(result['p99_itl_ms']).toBeCloseTo(981);
    expect(result['median_e2el_ms']).toBe(160);
  });

  it('finds the busiest second and how many ran at once', () => {
    // three of the first answer and, as a piece of five tokens in two counts, 2.5 of the second
    expect(result.max_output_tokens_per_s).toBe(5.5);
    expect(result.max_concurrent_requests).toBe(2);
  });

  it('counts requests within all bounds as good', () => {
    const goodput = (bounds: object) => serveResult(traces, { ...options, goodput: bounds }).request_goodput;
    expect(goodput({ ttft: 100 })).toBe(1);
    expect(goodput({ ttft: 300, tpot: 30 })).toBe(1);
    expect(goodput({ e2el: 1300, tpot: 250 })).toBe(1.5);
    expect(goodput({ ttft: 99 })).toBe(0);
  });

  it('leaves out the latencies that nobody wants', () => {
    const names = Object.keys(serveResult(traces, { ...options, metrics: ['itl'], percentiles: [50, 99.9] }));
    expect(names.filter((name) => name.endsWith('_ms'))).toEqual([
      'mean_itl_ms', 'median_itl_ms', 'std_itl_ms', 'p50_itl_ms', 'p99.9_itl_ms',
    ]); // prettier-ignore
  });

  it('survives a run in which everything failed', () => {
    const failed = serveResult([trace({ error: 'no' })], options);
    expect(failed).toMatchObject({
      completed: 0,
      failed: 1,
      output_throughput: 0,
      max_concurrent_requests: 0,
    });
  });
});

describe('detailedResult', () => {
  it('has one entry per request, in seconds', () => {
    expect(detailedResult(traces)).toEqual({
      input_lens: [10, 10, 10, 10],
      output_lens: [3, 5, 1, 0],
      ttfts: [0.1, 0.3, 0.1, 0],
      itls: [[0.05, 0.01], [1], [], []],
      start_times: [0, 0.1, 1.5, 0],
      generated_texts: ['x', 'x', 'x', 'x'],
      errors: ['', '', '', 'status 500'],
    });
  });
});
