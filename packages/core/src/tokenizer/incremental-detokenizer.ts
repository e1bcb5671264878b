/**
 * Text of a growing token sequence. It runs for every token of every stream on the main thread, so the usual push (one
 * token of whole characters, nothing held back) is one lookup and one string concatenation.
 */
import type { ByteLevelTokens, PieceTokens } from './token-text.js';
import type { IncrementalDetokenizer } from './types.js';
import { decodeUtf8, sequenceLength, unfinishedLength } from './utf8.js';

const nothing = new Uint8Array(0);

/** Byte-level BPE: the tokens' bytes are one UTF-8 stream; at most 3 bytes are held back. */
export class ByteLevelDetokenizer implements IncrementalDetokenizer {
  readonly #tokens: ByteLevelTokens;
  readonly #isSkipped: (tokenId: number) => boolean;
  #unfinished: Uint8Array = nothing;

  constructor(tokens: ByteLevelTokens, isSkipped: (tokenId: number) => boolean) {
    this.#tokens = tokens;
    this.#isSkipped = isSkipped;
  }

  push(tokenIds: readonly number[]): string {
    let text = '';
    for (let i = 0; i < tokenIds.length; i++) {
      const tokenId = tokenIds[i]!;
      if (this.#isSkipped(tokenId)) continue;
      const whole = this.#unfinished.length === 0 ? this.#tokens.wholeText(tokenId) : null;
      text += whole ?? this.#appendBytes(this.#tokens.bytes(tokenId));
    }
    return text;
  }

  flush(): string {
    const text = decodeUtf8(this.#unfinished);
    this.#unfinished = nothing;
    return text;
  }

  #appendBytes(bytes: Uint8Array): string {
    const joined = new Uint8Array(this.#unfinished.length + bytes.length);
    joined.set(this.#unfinished);
    joined.set(bytes, this.#unfinished.length);
    const end = joined.length - unfinishedLength(joined);
    this.#unfinished = joined.slice(end);
    return decodeUtf8(joined.subarray(0, end));
  }
}

/**
 * Pieces with byte fallback: byte tokens that follow each other make characters; every byte that is not part of a valid
 * one becomes U+FFFD, as in SentencePiece. (Rust's decoder gives up the valid characters of such a run too, which no
 * stream can do that has already shown them.)
 */
export class PiecesDetokenizer implements IncrementalDetokenizer {
  readonly #tokens: PieceTokens;
  readonly #isSkipped: (tokenId: number) => boolean;
  /** Bytes (at most 3) that begin a character. */
  #unfinished: number[] = [];
  #isFirst = true;
  /** Leading spaces of the text that are still to be dropped. */
  #numSpacesToDrop: number;

  constructor(tokens: PieceTokens, isSkipped: (tokenId: number) => boolean) {
    this.#tokens = tokens;
    this.#isSkipped = isSkipped;
    this.#numSpacesToDrop = tokens.decoder.stripSpaces;
  }

  push(tokenIds: readonly number[]): string {
    let text = '';
    for (let i = 0; i < tokenIds.length; i++) {
      const tokenId = tokenIds[i]!;
      if (this.#isSkipped(tokenId)) continue;
      text += this.#append(tokenId);
    }
    return this.#numSpacesToDrop > 0 ? this.#dropSpaces(text) : text;
  }

  flush(): string {
    const text = this.#endBytes();
    return this.#numSpacesToDrop > 0 ? this.#dropSpaces(text) : text;
  }

  #append(tokenId: number): string {
    const text = this.#tokens.text(tokenId);
    if (text === null) return this.#appendByte(this.#tokens.byte(tokenId)!);
    if (this.#isFirst) return this.#first(tokenId);
    return this.#unfinished.length === 0 || text === '' ? text : this.#endBytes() + text;
  }

  #first(tokenId: number): string {
    const text = this.#tokens.firstText(tokenId);
    if (text !== undefined) this.#isFirst = false;
    return text ?? '';
  }

  #appendByte(byte: number): string {
    this.#isFirst = false;
    this.#unfinished.push(byte);
    let text = '';
    while (this.#unfinished.length > 0) {
      const length = sequenceLength(this.#unfinished, 0, this.#unfinished.length);
      if (length === 0) break;
      text += length < 0 ? '\uFFFD' : decodeUtf8(Uint8Array.from(this.#unfinished.slice(0, length)));
      this.#unfinished.splice(0, Math.max(1, length));
    }
    return text;
  }

  #endBytes(): string {
    const text = '\uFFFD'.repeat(this.#unfinished.length);
    this.#unfinished = [];
    return text;
  }

  #dropSpaces(text: string): string {
    let start = 0;
    while (this.#numSpacesToDrop > 0 && text[start] === ' ') {
      start++;
      this.#numSpacesToDrop--;
    }
    if (start < text.length) this.#numSpacesToDrop = 0;
    return text.slice(start);
  }
}

/** Decoders that need the whole sequence (WordPiece, CTC…): all text comes with `flush`. */
export class WholeDetokenizer implements IncrementalDetokenizer {
  readonly #decode: (tokenIds: readonly number[]) => string;
  #tokenIds: number[] = [];

  constructor(decode: (tokenIds: readonly number[]) => string) {
    this.#decode = decode;
  }

  push(tokenIds: readonly number[]): string {
    for (const tokenId of tokenIds) this.#tokenIds.push(tokenId);
    return '';
  }

  flush(): string {
    const text = this.#decode(this.#tokenIds);
    this.#tokenIds = [];
    return text;
  }
}
