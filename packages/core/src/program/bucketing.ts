/** Backends that compile for fixed shapes run each step padded up to one of their buckets. */
import { TenonError } from '../errors.js';

/** The smallest bucket that holds `numTokens`; without buckets, `numTokens`. Throws config.invalid-option above the largest. */
export function padTokenCount(numTokens: number, tokenBuckets: readonly number[]): number {
  return pad(numTokens, tokenBuckets, 'tokens', '--max-num-batched-tokens');
}

/** The smallest bucket that holds so many sequences of one token each. Throws config.invalid-option above the largest. */
export function padSeqCount(numSeqs: number, decodeBuckets: readonly number[]): number {
  return pad(numSeqs, decodeBuckets, 'sequences', '--max-num-seqs');
}

function pad(count: number, buckets: readonly number[], noun: string, option: string): number {
  if (buckets.length === 0) return count;
  for (const bucket of buckets) if (bucket >= count) return bucket;
  const message = `a step of ${count} ${noun} exceeds the device’s largest of ${buckets.at(-1)}`;
  throw new TenonError('config.invalid-option', `${message}: lower ${option}`);
}
