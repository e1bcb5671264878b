/**
 * tokenizer.json rewritten into the part of the format where @huggingface/tokenizers (JavaScript) splits text exactly as
 * the Rust library does. Its own Digits, Punctuation, Whitespace, Metaspace and Split differ in the details noted below;
 * each of them is a `Split` by an equivalent regex.
 */
import { invalidTokenizer, isObject, type JsonObject } from './tokenizer-definition.js';

/** GPT-2's words; `\s` here is Unicode white space, as in Rust. */
export const gpt2Words = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };

/** Pieces are the matches and what lies between them. */
function splitIsolated(regex: string): JsonObject {
  return { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false };
}

/** Byte-level BPE's splitter: each regex in turn, then bytes to the printable alphabet. */
export function byteLevelPreTokenizer(regexes: readonly string[]): JsonObject {
  return { type: 'Sequence', pretokenizers: [...regexes.map(splitIsolated), byteLevel] };
}

export function adaptPreTokenizer(preTokenizer: unknown): JsonObject | null {
  if (preTokenizer === null || preTokenizer === undefined) return null;
  const where = 'tokenizer.json pre_tokenizer';
  if (!isObject(preTokenizer)) throw invalidTokenizer(where, 'expected an object or null');
  switch (preTokenizer.type) {
    case 'Sequence':
      return {
        type: 'Sequence',
        pretokenizers: asArray(preTokenizer.pretokenizers, `${where}.pretokenizers`).map(adaptPreTokenizer),
      };
    case 'ByteLevel':
      return adaptByteLevel(preTokenizer);
    case 'Split':
      return adaptSplit(preTokenizer, where);
    case 'CharDelimiterSplit':
      return adaptSplit({ pattern: { String: preTokenizer.delimiter }, behavior: 'Removed' }, where);
    case 'Digits':
      // The library's \d is ASCII; Rust's digits are all of \p{N}.
      return splitIsolated(preTokenizer.individual_digits === true ? String.raw`\p{N}` : String.raw`\p{N}+`);
    case 'Punctuation':
      // The library always makes runs; Rust's default isolates each character.
      return adaptSplit(
        { pattern: { Regex: punctuation }, behavior: preTokenizer.behavior ?? 'Isolated' },
        where,
      );
    case 'Whitespace':
      return {
        type: 'Split',
        pattern: { Regex: words },
        behavior: 'Removed',
        invert: true,
      };
    case 'WhitespaceSplit':
      return { type: 'Split', pattern: { Regex: String.raw`\s+` }, behavior: 'Removed', invert: false };
    case 'Metaspace':
      return adaptMetaspace(preTokenizer);
    default:
      return preTokenizer;
  }
}

const punctuation = String.raw`[!-/:-@\[-${'`'}{-~\p{P}]`;

/** Rust's `\w+|[^\w\s]+`, whose `\w` includes the two joiners. */
const words = String.raw`[\w\u200C\u200D]+|[^\w\u200C\u200D\s]+`;

function adaptByteLevel(preTokenizer: JsonObject): JsonObject {
  const steps: JsonObject[] = [];
  // Metaspace with a space for its mark: a piece that does not start with a space gets one.
  if (preTokenizer.add_prefix_space === true)
    steps.push({ type: 'Metaspace', replacement: ' ', prepend_scheme: 'always' });
  if (preTokenizer.use_regex !== false) steps.push(splitIsolated(gpt2Words));
  return { type: 'Sequence', pretokenizers: [...steps, byteLevel] };
}

/** All behaviours as `Isolated` or `Removed`, the two that the library has. */
function adaptSplit(split: JsonObject, where: string): JsonObject {
  const regex = patternSource(split.pattern, where);
  const inverted = split.invert === true;
  switch (String(split.behavior ?? 'Isolated').toLowerCase()) {
    case 'removed':
      return { type: 'Split', pattern: { Regex: regex }, behavior: 'Removed', invert: inverted };
    case 'isolated':
      return splitIsolated(regex);
    case 'contiguous':
      // Inverted: runs of what does not match, which is what the gaps are anyway.
      return splitIsolated(inverted ? regex : `(?:${regex})+`);
    case 'mergedwithprevious':
      return splitIsolated(forbidInverted(String.raw`[\s\S]*?(?:${regex})`, inverted, where));
    case 'mergedwithnext':
      return splitIsolated(forbidInverted(String.raw`(?:${regex})(?:(?!${regex})[\s\S])*`, inverted, where));
    default:
      throw invalidTokenizer(where, `unknown Split behavior '${String(split.behavior)}'`);
  }
}

function forbidInverted(regex: string, inverted: boolean, where: string): string {
  if (inverted)
    throw invalidTokenizer(where, 'an inverted Split that merges its delimiters is not supported');
  return regex;
}

function patternSource(pattern: unknown, where: string): string {
  if (isObject(pattern) && typeof pattern.Regex === 'string') return pattern.Regex;
  if (isObject(pattern) && typeof pattern.String === 'string') return escapeRegex(pattern.String);
  throw invalidTokenizer(where, 'a Split pattern is neither {"Regex": …} nor {"String": …}');
}

function escapeRegex(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}

/** The library knows neither the older `add_prefix_space` nor `split`, which cuts before each `▁`. */
function adaptMetaspace(metaspace: JsonObject): JsonObject {
  const replacement = typeof metaspace.replacement === 'string' ? metaspace.replacement : '▁';
  const scheme = metaspace.prepend_scheme ?? (metaspace.add_prefix_space === false ? 'never' : 'always');
  const mark = { type: 'Metaspace', replacement, prepend_scheme: scheme };
  if (metaspace.split === false) return mark;
  const cut = splitIsolated(`${escapeRegex(replacement)}[^${escapeRegex(replacement)}]*`);
  return { type: 'Sequence', pretokenizers: [mark, cut] };
}

/** JavaScript gives `$` in a replacement a meaning that Rust does not. */
export function adaptNormalizer(normalizer: unknown): JsonObject | null {
  if (normalizer === null || normalizer === undefined) return null;
  if (!isObject(normalizer))
    throw invalidTokenizer('tokenizer.json normalizer', 'expected an object or null');
  if (normalizer.type === 'Sequence') {
    const steps = asArray(normalizer.normalizers, 'tokenizer.json normalizer.normalizers');
    return { type: 'Sequence', normalizers: steps.map(adaptNormalizer) };
  }
  if (normalizer.type === 'Replace' && typeof normalizer.content === 'string') {
    return { ...normalizer, content: normalizer.content.replaceAll('$', '$$$$') };
  }
  return normalizer;
}

export function asArray(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) throw invalidTokenizer(where, 'expected an array');
  return value;
}
