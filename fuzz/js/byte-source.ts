/** The fuzzer's bytes as a sequence of choices; after the last one, everything is 0. */
export class ByteSource {
  #at = 0;

  constructor(readonly bytes: Uint8Array) {}

  get isEmpty(): boolean {
    return this.#at >= this.bytes.length;
  }

  byte(): number {
    return this.bytes[this.#at++] ?? 0;
  }

  /** An integer from 0 to `count` - 1. */
  below(count: number): number {
    const value = count > 256 ? this.byte() * 256 + this.byte() : this.byte();
    return count === 0 ? 0 : value % count;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  /** A short text of any bytes, as UTF-8. */
  text(): string {
    const length = this.byte() % 24;
    const text = Buffer.from(this.bytes.subarray(this.#at, this.#at + length)).toString('utf8');
    this.#at += length;
    return text;
  }

  rest(): Uint8Array {
    return this.bytes.subarray(this.#at);
  }
}
