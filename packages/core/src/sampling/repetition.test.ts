import { expect, it } from 'vitest';
import { endsInRepetition } from './repetition.js';

const detection = { minPatternSize: 2, maxPatternSize: 3, minCount: 3 };

it.each([
  ['three pairs at the end', [9, 1, 2, 1, 2, 1, 2], true],
  ['three triples', [1, 2, 3, 1, 2, 3, 1, 2, 3], true],
  ['six equal tokens are three pairs', [5, 5, 5, 5, 5, 5], true],
  ['two pairs are too few', [9, 9, 1, 2, 1, 2], false],
  ['pairs before the end', [1, 2, 1, 2, 1, 2, 3], false],
  ['a pattern longer than the largest', [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], false],
  ['a pattern shorter than the smallest', [7, 8, 5, 5, 5], false],
  ['nothing yet', [], false],
])('%s', (_, tokenIds, repeats) => {
  expect(endsInRepetition(tokenIds, detection)).toBe(repeats);
});
