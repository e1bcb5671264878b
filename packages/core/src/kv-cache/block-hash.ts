import { hash } from 'node:crypto';

/** 32-bit words of a digest. Digests are kept side by side in typed arrays, [numDigests][digestWords]. */
export const digestWords = 8;
const digestBytes = 4 * digestWords;

/** Blocks whose digests are remembered, a power of two: 128 000 tokens in blocks of 16, in 1 MiB. */
const numRemembered = 8192;

/**
 * The hash chain of full blocks: H(parent, tokens, extra), SHA-256. Parent and tokens have fixed lengths, so the
 * concatenation is unambiguous. A block's digest names everything the block's KV depends on: all tokens up to its end
 * and the extra keys (cache salt). The parent of a first block is all zeros.
 *
 * Prompts that begin alike come many at a time, so digests are remembered by what they are of, word by word: a tenth of the time.
 */
export class BlockHasher {
  /** Parent and tokens, as bytes and as words [digestWords + blockSize]. */
  readonly #bytes: Buffer;
  readonly #words: Int32Array;
  /** [numRemembered][#words, digest]: each at the place that a cheap hash of its words says. */
  readonly #remembered: Int32Array;

  constructor(readonly blockSize: number) {
    const storage = new ArrayBuffer(digestBytes + 4 * blockSize);
    this.#bytes = Buffer.from(storage);
    this.#words = new Int32Array(storage);
    this.#remembered = new Int32Array(numRemembered * (this.#words.length + digestWords));
  }

  /** Writes the digest of block `index` of `tokenIds` behind those of the blocks before it. */
  hash(digests: Int32Array, tokenIds: Int32Array, index: number, extra: string): void {
    const words = this.#words;
    const end = index * digestWords;
    const firstToken = index * this.blockSize;
    for (let i = 0; i < digestWords; i++) words[i] = index === 0 ? 0 : digests[end - digestWords + i]!;
    for (let i = 0; i < this.blockSize; i++) words[digestWords + i] = tokenIds[firstToken + i]!;
    if (extra !== '') this.#digest(Buffer.concat([this.#bytes, Buffer.from(extra)]));
    else this.#recall();
    for (let i = 0; i < digestWords; i++) digests[end + i] = words[i]!;
  }

  /** Replaces the parent by the digest of the message. */
  #digest(message: Buffer): void {
    // One string per digest: `createHash` makes an object for the garbage collector to finalize, at several times the cost.
    this.#bytes.write(hash('sha256', message, 'binary'), 0, digestBytes, 'binary');
  }

  /** Replaces the parent by the digest of parent and tokens. */
  #recall(): void {
    const words = this.#words;
    const remembered = this.#remembered;
    const at = this.#placeOf(words);
    const digestAt = at + words.length;
    if (!this.#isAt(at)) {
      remembered.set(words, at);
      this.#digest(this.#bytes);
      for (let i = 0; i < digestWords; i++) remembered[digestAt + i] = words[i]!;
    }
    for (let i = 0; i < digestWords; i++) words[i] = remembered[digestAt + i]!;
  }

  #placeOf(words: Int32Array): number {
    let mixed = 0;
    for (let i = 0; i < words.length; i++) mixed = Math.imul(mixed ^ words[i]!, 0x9e3779b1) ^ (mixed >>> 15);
    return ((mixed ^ (mixed >>> 13)) & (numRemembered - 1)) * (words.length + digestWords);
  }

  #isAt(at: number): boolean {
    const words = this.#words;
    if (this.#remembered[at + words.length] === 0) return false; // a digest of nothing, but for one in 2³²
    for (let i = words.length - 1; i >= 0; i--) if (this.#remembered[at + i] !== words[i]) return false;
    return true;
  }
}
