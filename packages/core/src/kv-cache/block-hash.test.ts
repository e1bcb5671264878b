import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { BlockHasher, digestWords } from './block-hash.js';

const blockSize = 4;

/** The chain's digests by the book. */
function digestsOf(tokenIds: Int32Array, extra: string): Int32Array {
  let parent = Buffer.alloc(4 * digestWords);
  const digests: number[] = [];
  for (let i = 0; i < tokenIds.length; i += blockSize) {
    const tokens = tokenIds.slice(i, i + blockSize);
    const message = createHash('sha256').update(parent).update(new Uint8Array(tokens.buffer));
    parent = (i === 0 ? message.update(extra) : message).digest();
    digests.push(...new Int32Array(Uint8Array.from(parent).buffer));
  }
  return Int32Array.from(digests);
}

it('gives the same digests for what it remembers, has forgotten, and has never seen', () => {
  const hasher = new BlockHasher(blockSize);
  const hashAll = (tokenIds: Int32Array, extra: string): Int32Array => {
    const digests = new Int32Array((tokenIds.length / blockSize) * digestWords);
    for (let i = 0; i < tokenIds.length / blockSize; i++)
      hasher.hash(digests, tokenIds, i, i === 0 ? extra : '');
    return digests;
  };
  const zeros = new Int32Array(8);
  // More blocks than are remembered, so that places are taken over; some prompts differ in their last token alone.
  const prompts = Array.from({ length: 1500 }, (_, i) =>
    Int32Array.from({ length: 24 }, (__, j) => (j < 12 ? (i % 300) + j : j < 23 ? j : i)),
  );
  for (const round of [1, 2])
    for (const prompt of [zeros, ...prompts, zeros])
      for (const extra of ['', `salt ${round}`])
        expect(hashAll(prompt, extra)).toEqual(digestsOf(prompt, extra));
});
