/**
 * The printable alphabet of byte-level BPE (GPT-2): each byte is one character; those that are printable in Latin-1 are
 * themselves, the others follow from U+0100.
 */

/** `byteOfChar[charCode]` is the byte, or -1 where the character is not in the alphabet. */
const byteOfChar = buildByteOfChar();

function buildByteOfChar(): Int16Array {
  const table = new Int16Array(0x144).fill(-1);
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    table[printable ? byte : next++] = byte;
  }
  return table;
}

/** The bytes that a token spells; undefined if one of its characters is outside the alphabet. */
export function byteLevelBytes(token: string): Uint8Array | undefined {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = byteOfChar[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
