import { describe, expect, it } from 'vitest';
import { resolveSamplingParams, samplingDefaults } from './resolve-sampling-params.js';
import { buildSamplerRow, withSeed } from './sampler-row.js';
import type { SamplingParams } from './sampling-params.js';

const limits = { vocabSize: 1000, maxLogprobs: 20 };
const resolve = (given: Partial<SamplingParams>, defaults: Partial<SamplingParams> = {}) =>
  resolveSamplingParams(given, defaults, limits);

describe('resolveSamplingParams', () => {
  it("takes the request's values, then the model's, then vLLM's", () => {
    const params = resolve({ topP: 0.5, temperature: undefined }, { topP: 0.9, temperature: 0.7 });
    expect(params).toEqual({ ...samplingDefaults, topP: 0.5, temperature: 0.7 });
  });

  it('makes tiny temperatures greedy, without the filters that then mean nothing', () => {
    expect(resolve({ temperature: 1e-6, topP: 0.5, topK: 3, minP: 0.1 })).toMatchObject({
      temperature: 0,
      topP: 1,
      topK: 0,
      minP: 0,
    });
    expect(resolve({ temperature: 0.001 }).temperature).toBe(0.01);
  });

  it('brings values into one form', () => {
    const params = resolve({ topK: -1, seed: -1, logitBias: { 5: 1000, 6: -101 } });
    expect(params).toMatchObject({ topK: 0, seed: undefined, logitBias: { 5: 100, 6: -100 } });
    expect(resolveSamplingParams({ logprobs: -1 }, {}, { vocabSize: 1000, maxLogprobs: -1 }).logprobs).toBe(
      1000,
    );
  });

  const cases: [Partial<SamplingParams>, string, string][] = [
    [{ temperature: 3 }, 'temperature', 'temperature is 3; expected a number from 0 to 2'],
    [{ temperature: Number.NaN }, 'temperature', 'temperature is NaN; expected a number from 0 to 2'],
    [{ topP: 0 }, 'topP', 'topP is 0; expected a number above 0 and at most 1'],
    [{ topK: -2 }, 'topK', 'topK is -2; expected an integer of at least -1'],
    [{ minP: 1.5 }, 'minP', 'minP is 1.5; expected a number from 0 to 1'],
    [{ presencePenalty: -2.5 }, 'presencePenalty', 'presencePenalty is -2.5; expected a number from -2 to 2'],
    [
      { frequencyPenalty: 2.5 },
      'frequencyPenalty',
      'frequencyPenalty is 2.5; expected a number from -2 to 2',
    ],
    [{ repetitionPenalty: 0 }, 'repetitionPenalty', 'repetitionPenalty is 0; expected a number above 0'],
    [{ n: 0 }, 'n', 'n is 0; expected an integer from 1 to 16384'],
    [
      { n: 2, temperature: 0 },
      'n',
      'n is 2; expected 1 when temperature is 0 (all sequences would be equal)',
    ],
    [{ maxTokens: 0 }, 'maxTokens', 'maxTokens is 0; expected an integer of at least 1'],
    [{ maxTokens: 3, minTokens: 4 }, 'minTokens', 'minTokens is 4; expected at most maxTokens (3)'],
    [{ seed: 1.5 }, 'seed', 'seed is 1.5; expected an integer'],
    [{ stop: ['a', 'b', 'c', 'd', 'e'] }, 'stop', 'stop is a list of 5; expected at most 4 entries'],
    [{ stop: [''] }, 'stop', 'stop is ; expected every entry to be a string that is not empty'],
    [
      { stopTokenIds: [1000] },
      'stopTokenIds',
      'stopTokenIds is 1000; expected every entry to be a token id below 1000',
    ],
    [{ allowedTokenIds: [] }, 'allowedTokenIds', 'allowedTokenIds is []; expected at least one token id'],
    [
      { logitBias: { 1000: 1 } },
      'logitBias',
      'logitBias is 1000; expected every entry to be a token id below 1000',
    ],
    [
      { logprobs: 21 },
      'logprobs',
      'logprobs is 21; expected an integer from 0 to 20 (see max-logprobs), or -1 for the vocabulary where that allows it',
    ],
    [
      { promptLogprobs: -1 },
      'promptLogprobs',
      'promptLogprobs is -1; expected an integer from 0 to 20 (see max-logprobs), or -1 for the vocabulary where that allows it',
    ],
    [{ ignoreEos: 1 as never }, 'ignoreEos', 'ignoreEos is 1; expected true or false'],
  ];
  it.each(cases)('refuses %j', (given, param, message) => {
    expect(() => resolve(given)).toThrow(
      expect.objectContaining({ code: 'request.invalid-value', param, message }),
    );
  });

  it("spells fields the HTTP API's way on demand", () => {
    const run = () =>
      resolveSamplingParams({ maxTokens: 1, minTokens: 2 }, {}, { ...limits, spelling: 'snake_case' });
    expect(run).toThrow(
      expect.objectContaining({
        param: 'min_tokens',
        message: 'min_tokens is 2; expected at most max_tokens (1)',
      }),
    );
  });
});

describe('buildSamplerRow', () => {
  const options = { suppressTokens: [7], badWords: new Int32Array(0), processedLogprobs: false };

  it('asks for history only where penalties or bad words need it', () => {
    expect(buildSamplerRow(samplingDefaults, options).needsHistory).toBe(false);
    expect(buildSamplerRow({ ...samplingDefaults, repetitionPenalty: 1.1 }, options).needsHistory).toBe(true);
    expect(
      buildSamplerRow(samplingDefaults, { ...options, badWords: Int32Array.of(1, 5) }).needsHistory,
    ).toBe(true);
  });

  it('splits seed + index into halves, modulo 2^64', () => {
    const row = buildSamplerRow(samplingDefaults, options);
    expect(withSeed(row, 2n ** 32n - 1n, 1)).toMatchObject({ seedLow: 0, seedHigh: 1 });
    expect(withSeed(row, -1n, 0)).toMatchObject({ seedLow: -1, seedHigh: -1 });
    expect(withSeed(row, -1n, 1)).toMatchObject({ seedLow: 0, seedHigh: 0 });
  });
});
