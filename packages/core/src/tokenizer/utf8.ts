/** UTF-8 at the byte level: where a text that still grows may be cut. */

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Each maximal invalid subpart becomes one U+FFFD, as in WHATWG and in Rust's `from_utf8_lossy`. */
export function decodeUtf8(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

export function isWholeUtf8(bytes: Uint8Array): boolean {
  let at = 0;
  while (at < bytes.length) {
    const length = sequenceLength(bytes, at, bytes.length);
    if (length <= 0) return false;
    at += length;
  }
  return true;
}

/**
 * Reads one character of `bytes[at..end)`: its length in bytes if it is whole and valid, 0 if the bytes are a valid but
 * unfinished beginning, -1 if they are invalid.
 */
export function sequenceLength(bytes: ArrayLike<number>, at: number, end: number): number {
  const lead = bytes[at]!;
  if (lead < 0x80) return 1;
  const length =
    lead >= 0xc2 && lead <= 0xdf ? 2 : (lead & 0xf0) === 0xe0 ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
  if (length === 0) return -1;
  // The second byte also excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  for (let i = 1; i < length; i++) {
    if (at + i >= end) return 0;
    const byte = bytes[at + i]!;
    if (i === 1 ? byte < low || byte > high : (byte & 0xc0) !== 0x80) return -1;
  }
  return length;
}

/** How many bytes at the end (0 to 3) begin a character that later bytes may finish. */
export function unfinishedLength(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const at = bytes.length - back;
    if ((bytes[at]! & 0xc0) !== 0x80) return sequenceLength(bytes, at, bytes.length) === 0 ? back : 0;
  }
  return 0;
}
