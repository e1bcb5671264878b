import { Command } from 'commander';
import { describe, expect, it } from 'vitest';

import {
  addDatasetOptions,
  type DatasetOptions,
  fittedOptions,
  randomRequestOptions,
} from './bench-dataset.js';
import { parseLengthRange } from './bench-options.js';
import {
  parseGoodput,
  parseJsonObject,
  parseMetrics,
  parsePairs,
  parsePercentiles,
} from './bench-serve-values.js';

describe('values of bench options', () => {
  it('are read', () => {
    expect(parseLengthRange('1k', '--input-len')).toEqual({ min: 1000, max: 1000 });
    expect(parseLengthRange('32:256', '--input-len')).toEqual({ min: 32, max: 256 });
    expect(parseMetrics('itl, ttft')).toEqual(['itl', 'ttft']);
    expect(parsePercentiles('50,99.9')).toEqual([50, 99.9]);
    expect(parseGoodput(['ttft:200', 'e2el:1000.5'])).toEqual({ ttft: 200, e2el: 1000.5 });
    expect(parsePairs('header', ['a=b=c'])).toEqual({ a: 'b=c' });
    expect(parseJsonObject('{"top_k":1}')).toEqual({ top_k: 1 });
  });

  it.each([
    () => parseLengthRange('9:8', '--input-len'),
    () => parseLengthRange('0', '--input-len'),
    () => parseLengthRange('1:2:3', '--input-len'),
    () => parseMetrics('itl,latency'),
    () => parsePercentiles('50,101'),
    () => parsePercentiles(''),
    () => parseGoodput(['itl:5']),
    () => parseGoodput(['ttft']),
    () => parsePairs('header', ['=a']),
    () => parseJsonObject('[1]'),
    () => parseJsonObject('{'),
  ])('are refused with the option and what was expected: %s', (parse) => {
    expect(parse).toThrow(/^--[\w-]+ is '.*'; expected /);
  });
});

describe('lengths of requests', () => {
  function options(args: readonly string[], maxModelLen?: number): DatasetOptions {
    const command = addDatasetOptions(new Command()).exitOverride().parse(args, { from: 'user' });
    return fittedOptions(command, command.opts<DatasetOptions>(), maxModelLen);
  }

  it("are vLLM's by default, and cut to what the model takes", () => {
    expect(options([])).toMatchObject({ inputLen: { max: 1024 }, outputLen: { max: 128 }, numPrompts: 1000 });
    expect(options([], 512)).toMatchObject({ inputLen: { max: 384 }, outputLen: { max: 128 } });
    expect(options(['--random-prefix-len', '100'], 512)).toMatchObject({ inputLen: { max: 284 } });
    expect(options([], 100)).toMatchObject({ inputLen: { max: 50 }, outputLen: { max: 50 } });
  });

  it('are as given, under either name', () => {
    const given = ['--input-len', '700', '--random-output-len', '9:900'];
    expect(options(given, 512)).toMatchObject({ inputLen: { max: 700 }, outputLen: { min: 9, max: 900 } });
  });

  it('are widened by the range ratio', () => {
    const given = options(['--input-len', '100', '--output-len', '10', '--random-range-ratio', '0.25']);
    expect(randomRequestOptions(given)).toMatchObject({
      inputLen: { min: 75, max: 125 },
      outputLen: { min: 7, max: 13 },
    });
    expect(() => randomRequestOptions({ ...given, randomRangeRatio: 1 })).toThrow('--random-range-ratio');
  });
});
