/** Sequential little-endian reading from the start of a file, through a small window. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { TenonError } from '../errors.js';

const windowBytes = 2 ** 20;
const maxStringBytes = 2 ** 24;

export class ByteReader {
  readonly sizeBytes: number;
  readonly #fd: number;
  #window = Buffer.alloc(0);
  #windowAt = 0;
  #position = 0;

  constructor(readonly file: string) {
    try {
      this.#fd = openSync(file, 'r');
    } catch (error) {
      throw this.invalid(`cannot be read: ${(error as Error).message}`);
    }
    this.sizeBytes = fstatSync(this.#fd).size;
  }

  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.sizeBytes - this.#position;
  }

  u8 = (): number => this.#take(1).readUInt8(this.#last);
  i8 = (): number => this.#take(1).readInt8(this.#last);
  u16 = (): number => this.#take(2).readUInt16LE(this.#last);
  i16 = (): number => this.#take(2).readInt16LE(this.#last);
  u32 = (): number => this.#take(4).readUInt32LE(this.#last);
  i32 = (): number => this.#take(4).readInt32LE(this.#last);
  f32 = (): number => this.#take(4).readFloatLE(this.#last);
  f64 = (): number => this.#take(8).readDoubleLE(this.#last);
  /** Rounded above 2^53. */
  u64 = (): number => Number(this.#take(8).readBigUInt64LE(this.#last));
  i64 = (): number => Number(this.#take(8).readBigInt64LE(this.#last));

  /** A string after its u64 length. */
  string = (): string => {
    const length = this.u64();
    if (length > maxStringBytes)
      throw this.invalid(`has a string of ${length} bytes at byte ${this.#position}`);
    const window = this.#take(length);
    return window.toString('utf8', this.#last, this.#last + length);
  };

  invalid(what: string): TenonError {
    return new TenonError('config.weights-invalid', `${this.file} ${what}`);
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Where in the window the bytes of the last `#take` begin. */
  #last = 0;

  #take(length: number): Buffer {
    if (length > this.remaining) {
      throw this.invalid(
        `ends at byte ${this.sizeBytes}, but ${length} bytes at ${this.#position} are announced: it is truncated or damaged`,
      );
    }
    if (this.#position + length > this.#windowAt + this.#window.length)
      this.#fill(Math.max(length, windowBytes));
    this.#last = this.#position - this.#windowAt;
    this.#position += length;
    return this.#window;
  }

  #fill(length: number): void {
    const wanted = Math.min(length, this.remaining);
    this.#window = Buffer.alloc(wanted);
    this.#windowAt = this.#position;
    const bytesRead = readSync(this.#fd, this.#window, 0, wanted, this.#position);
    if (bytesRead !== wanted) throw this.invalid('ended while it was read');
  }
}
