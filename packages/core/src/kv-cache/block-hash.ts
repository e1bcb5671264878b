import { hash } from 'node:crypto';

/** 32-bit words of a digest. Digests are kept side by side in typed arrays, [numDigests][digestWords]. */
export const digestWords = 8;
const digestBytes = 4 * digestWords;

/**
 * The hash chain of full blocks: H(parent, tokens, extra), SHA-256. Parent and tokens have fixed lengths, so the
 * concatenation is unambiguous. A block's digest names everything the block's KV depends on: all tokens up to its end
 * and the extra keys (cache salt). The parent of a first block is all zeros.
 */
export class BlockHasher {
  /** Parent and tokens, as bytes and as words [digestWords + blockSize]. */
  readonly #bytes: Buffer;
  readonly #words: Int32Array;

  constructor(readonly blockSize: number) {
    const storage = new ArrayBuffer(digestBytes + 4 * blockSize);
    this.#bytes = Buffer.from(storage);
    this.#words = new Int32Array(storage);
  }

  /** Writes the digest of block `index` of `tokenIds` behind those of the blocks before it. */
  hash(digests: Int32Array, tokenIds: Int32Array, index: number, extra: string): void {
    const words = this.#words;
    const end = index * digestWords;
    const firstToken = index * this.blockSize;
    for (let i = 0; i < digestWords; i++) words[i] = index === 0 ? 0 : digests[end - digestWords + i]!;
    for (let i = 0; i < this.blockSize; i++) words[digestWords + i] = tokenIds[firstToken + i]!;
    const message = extra === '' ? this.#bytes : Buffer.concat([this.#bytes, Buffer.from(extra)]);
    // One string per digest: `createHash` makes an object for the garbage collector to finalize, at several times the cost.
    this.#bytes.write(hash('sha256', message, 'binary'), 0, digestBytes, 'binary');
    for (let i = 0; i < digestWords; i++) digests[end + i] = words[i]!;
  }
}
