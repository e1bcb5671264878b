import { describe, expect, it } from 'vitest';
import { parseJsonObject } from './json-file.js';

describe('the JSON of a model', () => {
  const parse = (text: string) => parseJsonObject(text, 'config.json', 'config.model-invalid');
  const nested = (depth: number) => `{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`;

  it('is refused where it nests too deep for what reads it', () => {
    expect(parse(nested(50))).toHaveProperty('a');
    for (const depth of [100, 10_000, 200_000]) {
      const named = expect.objectContaining({ code: 'config.model-invalid' }) as Error;
      expect(() => parse(nested(depth))).toThrow(named);
      expect(() => parse(nested(depth))).toThrow('config.json nests values more than 100 deep');
    }
  });

  it('is refused where it is no object', () => {
    for (const text of ['', '[1]', 'null', '{"a":', '1']) expect(() => parse(text)).toThrow('config.json');
  });
});
