import { expect, it } from 'vitest';
import { padTokenCount } from './bucketing.js';

it('pads up to the next bucket, and not at all without buckets', () => {
  expect([1, 16, 17, 64].map((count) => padTokenCount(count, [16, 32, 64]))).toEqual([16, 16, 32, 64]);
  expect(padTokenCount(77, [])).toBe(77);
});

it('names both numbers when nothing is large enough', () => {
  expect(() => padTokenCount(65, [16, 64])).toThrow('a step of 65 tokens exceeds the device’s largest of 64');
});
