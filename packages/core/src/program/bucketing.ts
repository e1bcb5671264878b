/** Backends that compile for fixed shapes run each step padded up to one of their buckets. */
import { TenonError } from '../errors.js';

/** The smallest bucket that holds `numTokens`; without buckets, `numTokens`. Throws config.invalid-option above the largest. */
export function padTokenCount(numTokens: number, tokenBuckets: readonly number[]): number {
  if (tokenBuckets.length === 0) return numTokens;
  const bucket = tokenBuckets.find((size) => size >= numTokens);
  if (bucket === undefined) {
    const message = `a step of ${numTokens} tokens exceeds the device’s largest of ${tokenBuckets.at(-1)}`;
    throw new TenonError('config.invalid-option', `${message}: lower --max-num-batched-tokens`);
  }
  return bucket;
}
