/**
 * What each token is in a decoded text. Two kinds of decoder are known token by token: byte-level (a token is bytes) and
 * pieces (a token is text, or one byte where it is spelled `<0xE2>`). Texts are cached as they are first needed.
 */
import { byteLevelBytes } from './byte-level-alphabet.js';
import { isObject, type JsonObject } from './tokenizer-definition.js';
import { decodeUtf8, isWholeUtf8 } from './utf8.js';

export type DecoderKind =
  | { readonly kind: 'byte-level' }
  | {
      readonly kind: 'pieces';
      readonly replacements: readonly { readonly from: string; readonly to: string }[];
      readonly byteFallback: boolean;
      /** Metaspace: these are dropped from the first token. */
      readonly dropFromFirst: string;
      /** How many leading spaces of the whole text are dropped. */
      readonly stripSpaces: number;
    }
  /** Any other: only the whole sequence can be decoded. */
  | { readonly kind: 'whole' };

export type PiecesDecoder = Extract<DecoderKind, { kind: 'pieces' }>;

/** The kind of tokenizer.json's decoder. */
export function decoderKind(decoder: JsonObject | null): DecoderKind {
  const steps = flattenSteps(decoder);
  const only = steps.length === 1 ? steps[0] : undefined;
  if (only?.type === 'ByteLevel') return { kind: 'byte-level' };
  if (only?.type === 'Metaspace') return metaspaceDecoder(only);
  return piecesDecoder(steps) ?? { kind: 'whole' };
}

function flattenSteps(decoder: JsonObject | null): JsonObject[] {
  if (decoder === null) return [];
  if (decoder.type !== 'Sequence' || !Array.isArray(decoder.decoders)) return [decoder];
  return decoder.decoders.filter(isObject).flatMap(flattenSteps);
}

function metaspaceDecoder(metaspace: JsonObject): PiecesDecoder {
  const from = typeof metaspace.replacement === 'string' ? metaspace.replacement : '▁';
  const never = metaspace.prepend_scheme === 'never' || metaspace.add_prefix_space === false;
  return {
    kind: 'pieces',
    replacements: [{ from, to: ' ' }],
    byteFallback: false,
    dropFromFirst: never ? '' : from,
    stripSpaces: 0,
  };
}

/** `Replace… ByteFallback? Fuse Strip?`, as Llama 2 and its kin have. */
function piecesDecoder(steps: readonly JsonObject[]): PiecesDecoder | undefined {
  const replacements: { from: string; to: string }[] = [];
  let byteFallback = false;
  let fused = false;
  let stripSpaces = 0;
  for (const step of steps) {
    if (step.type === 'Replace' && !byteFallback && !fused) {
      const from = isObject(step.pattern) ? step.pattern.String : undefined;
      if (typeof from !== 'string' || from === '' || typeof step.content !== 'string') return undefined;
      replacements.push({ from, to: step.content });
    } else if (step.type === 'ByteFallback' && !fused) {
      byteFallback = true;
    } else if (step.type === 'Fuse') {
      fused = true;
    } else if (step.type === 'Strip' && fused && step.content === ' ' && step.stop === 0) {
      stripSpaces += Number(step.start);
    } else {
      return undefined;
    }
  }
  return fused ? { kind: 'pieces', replacements, byteFallback, dropFromFirst: '', stripSpaces } : undefined;
}

/** The bytes of byte-level tokens. */
export class ByteLevelTokens {
  readonly #spelling: (tokenId: number) => string | undefined;
  readonly #bytes: (Uint8Array | undefined)[] = [];
  /** `null`: not whole characters, so only its bytes count. */
  readonly #texts: (string | null | undefined)[] = [];

  constructor(spelling: (tokenId: number) => string | undefined) {
    this.#spelling = spelling;
  }

  /** The token's text if its bytes are whole characters, else null; '' outside of the vocabulary. */
  wholeText(tokenId: number): string | null {
    const known = this.#texts[tokenId];
    if (known !== undefined) return known;
    const bytes = this.bytes(tokenId);
    const text = isWholeUtf8(bytes) ? decodeUtf8(bytes) : null;
    if (bytes.length > 0) this.#texts[tokenId] = text;
    return text;
  }

  bytes(tokenId: number): Uint8Array {
    const known = this.#bytes[tokenId];
    if (known !== undefined) return known;
    const token = this.#spelling(tokenId);
    if (token === undefined) return new Uint8Array(0);
    // An added token may hold characters outside of the alphabet; it then stands for itself.
    const bytes = byteLevelBytes(token) ?? new TextEncoder().encode(token);
    this.#bytes[tokenId] = bytes;
    return bytes;
  }
}

/** The texts of piece tokens. */
export class PieceTokens {
  readonly decoder: PiecesDecoder;
  readonly #spelling: (tokenId: number) => string | undefined;
  /** `null`: a byte token. */
  readonly #texts: (string | null | undefined)[] = [];

  constructor(decoder: PiecesDecoder, spelling: (tokenId: number) => string | undefined) {
    this.decoder = decoder;
    this.#spelling = spelling;
  }

  /** The token's text after another token, null for a byte token; '' outside of the vocabulary. */
  text(tokenId: number): string | null {
    const known = this.#texts[tokenId];
    if (known !== undefined) return known;
    const token = this.#spelling(tokenId);
    if (token === undefined) return '';
    const text = this.byte(tokenId) === undefined ? this.#replaced(token) : null;
    this.#texts[tokenId] = text;
    return text;
  }

  /** The text where the token is the first one of a sequence; undefined outside of the vocabulary. */
  firstText(tokenId: number): string | undefined {
    const { dropFromFirst } = this.decoder;
    const token = this.#spelling(tokenId);
    if (token === undefined) return undefined;
    return dropFromFirst === '' ? this.#replaced(token) : token.replaceAll(dropFromFirst, '');
  }

  /** The byte that a token like `<0xE2>` stands for. */
  byte(tokenId: number): number | undefined {
    const token = this.decoder.byteFallback ? this.#spelling(tokenId) : undefined;
    const digits = token === undefined ? undefined : /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    return digits === undefined ? undefined : Number.parseInt(digits, 16);
  }

  #replaced(token: string): string {
    let text = token;
    for (const { from, to } of this.decoder.replacements) text = text.replaceAll(from, to);
    return text;
  }
}
