import { expect, it } from 'vitest';
import { pairwise } from './pairwise.js';
import { Random } from './random.js';

it('covers every pair of values, in far fewer rows than there are combinations', () => {
  const parameters = { a: [1, 2, 3, 4, 5], b: ['x', 'y', 'z'], c: [false, true], d: [0, 1, 2, 3] } as const;
  const rows = pairwise(parameters, new Random(1));
  const names = Object.keys(parameters) as (keyof typeof parameters)[];
  for (const [i, first] of names.entries())
    for (const second of names.slice(i + 1))
      for (const x of parameters[first])
        for (const y of parameters[second])
          expect(
            rows.some((row) => row[first] === x && row[second] === y),
            `${first}=${x}, ${second}=${y}`,
          ).toBe(true);
  expect(rows.length).toBeLessThan(40);
});

it('gives the same rows for the same seed', () => {
  const rows = (seed: number) => pairwise({ a: [1, 2, 3], b: [4, 5, 6], c: [7, 8] }, new Random(seed));
  expect(rows(5)).toEqual(rows(5));
  expect(rows(5)).not.toEqual(rows(6));
});
