import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { Random } from './random.js';
import { asText, customRequests, randomRequests, type RandomRequestOptions } from './requests.js';
import { summarize } from './statistics.js';

const options: RandomRequestOptions = {
  numRequests: 500,
  inputLen: { min: 8, max: 512 },
  outputLen: { min: 5, max: 5 },
  prefixLen: 0,
  lengths: 'uniform',
  vocabSize: 1000,
};

function lengthsOf(given: Partial<RandomRequestOptions>): number[] {
  return randomRequests({ ...options, ...given }, new Random(1)).map(({ prompt }) => prompt.length);
}

describe('randomRequests', () => {
  it('draws lengths evenly from the whole range', () => {
    const lengths = lengthsOf({});
    expect(Math.min(...lengths)).toBeGreaterThanOrEqual(8);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(512);
    // mean 260, standard error 6.5
    expect(Math.abs(summarize(lengths, []).mean - 260)).toBeLessThan(26);
  });

  it('draws mostly short lengths and few long ones where asked', () => {
    const { median, mean, percentiles } = summarize(lengthsOf({ lengths: 'lognormal' }), [0, 100]);
    // the median of 8…512 on a logarithmic scale
    expect(median).toBeGreaterThan(50);
    expect(median).toBeLessThan(80);
    expect(mean).toBeGreaterThan(1.3 * median);
    expect(percentiles.get(0)).toBeGreaterThanOrEqual(8);
    expect(percentiles.get(100)).toBeLessThanOrEqual(512);
  });

  it('counts what it made, within the vocabulary, and starts all prompts with the prefix', () => {
    const requests = randomRequests({ ...options, prefixLen: 6 }, new Random(1));
    const prefix = requests[0]?.prompt.slice(0, 6);
    for (const { prompt, numPromptTokens, numOutputTokens } of requests) {
      expect(prompt.length).toBe(numPromptTokens);
      expect(prompt.slice(0, 6)).toEqual(prefix);
      expect(numOutputTokens).toBe(5);
      expect(Math.max(...(prompt as number[]))).toBeLessThan(1000);
    }
    expect(new Set(requests.map(({ prompt }) => String(prompt))).size).toBe(500);
  });

  it('has one word per token as text', () => {
    const text = asText({ prompt: [40, 41, 99], numPromptTokens: 3, numOutputTokens: 2 });
    expect(text).toMatchObject({ numPromptTokens: undefined, numOutputTokens: 2 });
    expect(String(text.prompt).split(' ')).toHaveLength(3);
  });
});

describe('customRequests', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'tenon-requests-')), 'requests.jsonl');

  it('reads a request per line', () => {
    writeFileSync(file, '{"prompt": "a", "output_tokens": 3}\n\n{"prompt": "b"}\n');
    expect(customRequests(file, 9)).toEqual([
      { prompt: 'a', numPromptTokens: undefined, numOutputTokens: 3 },
      { prompt: 'b', numPromptTokens: undefined, numOutputTokens: 9 },
    ]);
  });

  it.each(['{"prompt": 3}', '{"prompt": "a", "output_tokens": 1.5}', 'no json', 'null'])(
    'names the line of %s',
    (line) => {
      writeFileSync(file, `{"prompt": "a"}\n${line}\n`);
      expect(() => customRequests(file, 9)).toThrow(`${file}:2`);
    },
  );
});
