import { Type } from 'typebox';
import { expect, it } from 'vitest';
import { expectedValue } from './expected-value.js';

it.each([
  [Type.Boolean(), 'true or false'],
  [Type.String({ minLength: 1, maxLength: 9 }), 'a non-empty string of at most 9 characters'],
  [Type.Integer(), 'an integer'],
  [Type.Integer({ minimum: -1 }), 'an integer of at least -1'],
  [Type.Number({ minimum: 0, maximum: 2 }), 'a number from 0 to 2'],
  [Type.Number({ exclusiveMinimum: 0, maximum: 1 }), 'a number above 0 and at most 1'],
  [Type.Number({ maximum: 1 }), 'a number of at most 1'],
  [Type.Array(Type.Array(Type.Integer()), { minItems: 1 }), 'a non-empty list of lists of integers'],
  [Type.Array(Type.String({ minLength: 1 })), 'a list of non-empty strings'],
  [Type.Union([Type.Literal('left'), Type.Literal('right')]), '"left" or "right"'],
  [Type.Union([Type.Boolean(), Type.Null()]), 'true or false'],
  [Type.Record(Type.String(), Type.Number()), 'an object'],
])('says what a schema asks for: %#', (schema, words) => {
  expect(expectedValue(schema)).toBe(words);
});
