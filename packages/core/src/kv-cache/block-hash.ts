import { createHash } from 'node:crypto';

const digestBytes = 32;
/** The parent of a first block. */
export const rootHash = '\0'.repeat(digestBytes);

/**
 * The hash chain of full blocks: H(parent, tokens, extra), SHA-256. Parent and tokens have fixed lengths, so the
 * concatenation is unambiguous. A block's hash names everything the block's KV depends on: all tokens up to its end
 * and the extra keys (cache salt).
 */
export class BlockHasher {
  readonly #bytes: Buffer;
  /** [blockSize], over the bytes after the parent's digest. */
  readonly #tokens: Int32Array;

  constructor(readonly blockSize: number) {
    const storage = new ArrayBuffer(digestBytes + 4 * blockSize);
    this.#bytes = Buffer.from(storage);
    this.#tokens = new Int32Array(storage, digestBytes, blockSize);
  }

  /** Hash of `tokenIds[start, start + blockSize)` after `parent`, one character per digest byte. */
  hash(parent: string, tokenIds: Int32Array, start: number, extra: string): string {
    this.#bytes.write(parent, 0, digestBytes, 'latin1');
    for (let i = 0; i < this.blockSize; i++) this.#tokens[i] = tokenIds[start + i]!;
    const sha = createHash('sha256').update(this.#bytes);
    if (extra !== '') sha.update(extra);
    return sha.digest('binary');
  }
}
