/**
 * The tokenizer of a GGUF file (its `tokenizer.ggml.*` metadata) as a `TokenizerDefinition`: byte-level BPE with the splitter
 * that `tokenizer.ggml.pre` names, or SentencePiece BPE, where the scores of the vocabulary order the merges.
 * Special and end tokens come from the metadata, never from how a token is spelled.
 */
import { byteLevelPreTokenizer } from './adapt-tokenizer-json.js';
import { findGgufPreTokenizer, ggufPreTokenizerNames } from './gguf-pre-tokenizers.js';
import {
  invalidTokenizer,
  type AddedToken,
  type JsonObject,
  type TokenizerDefinition,
} from './tokenizer-definition.js';

/** `tokenizer.ggml.token_type`. */
const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const space = '▁';

export function ggufDefinition(metadata: JsonObject): TokenizerDefinition {
  const model = metadata['tokenizer.ggml.model'];
  if (model === 'gpt2') return byteLevelBpe(metadata);
  if (model === 'llama') return sentencePieceBpe(metadata);
  throw invalidTokenizer(
    'GGUF tokenizer.ggml.model',
    `'${String(model)}' is not supported; supported are gpt2 (byte-level BPE) and llama (SentencePiece)`,
  );
}

function byteLevelBpe(metadata: JsonObject): TokenizerDefinition {
  const { tokens, types } = readVocabulary(metadata);
  const pre = requirePreTokenizer(metadata['tokenizer.ggml.pre']);
  const merges = stringArray(metadata, 'merges');
  const bad = merges.findIndex((merge) => merge.indexOf(' ', 1) < 0);
  if (bad >= 0)
    throw invalidTokenizer('GGUF tokenizer.ggml.merges', `entry ${bad} is not a pair: '${merges[bad]}'`);
  return {
    normalizer: null,
    preTokenizer: byteLevelPreTokenizer(pre.regexes),
    model: {
      type: 'BPE',
      vocab: vocabularyObject(tokens),
      merges,
      ignore_merges: pre.ignoreMerges ?? false,
      byte_fallback: false,
    },
    decoder: { type: 'ByteLevel' },
    addedTokens: readAddedTokens(tokens, types),
    ...readSpecialTokens(metadata, tokens, { addBos: pre.addBos ?? false }),
  };
}

function requirePreTokenizer(name: unknown): NonNullable<ReturnType<typeof findGgufPreTokenizer>> {
  const found = typeof name === 'string' ? findGgufPreTokenizer(name) : undefined;
  if (found !== undefined) return found;
  const what =
    name === undefined ? 'missing: the file does not say how to split text' : `'${String(name)}' is unknown`;
  throw invalidTokenizer(
    'GGUF tokenizer.ggml.pre',
    `${what}; convert the model again with a current converter, or use one of ${ggufPreTokenizerNames().join(', ')}`,
  );
}

function sentencePieceBpe(metadata: JsonObject): TokenizerDefinition {
  const { tokens, types } = readVocabulary(metadata);
  const scores = numberArray(metadata, 'scores');
  if (scores.length !== tokens.length) {
    throw invalidTokenizer(
      'GGUF tokenizer.ggml.scores',
      `${scores.length} scores for ${tokens.length} tokens`,
    );
  }
  const addSpacePrefix = flag(metadata, 'add_space_prefix', true);
  const escape = { type: 'Replace', pattern: { String: ' ' }, content: space };
  const prepend = { type: 'Prepend', prepend: space };
  const unknownId = tokenId(metadata, 'unknown_token_id') ?? 0;
  return {
    normalizer: { type: 'Sequence', normalizers: addSpacePrefix ? [prepend, escape] : [escape] },
    preTokenizer: null,
    model: {
      type: 'BPE',
      vocab: vocabularyObject(tokens),
      merges: [],
      unk_token: tokens[unknownId],
      fuse_unk: false,
      byte_fallback: true,
    },
    mergeRanks: mergeRanksOfScores(tokens, types, scores),
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: space }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(addSpacePrefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    addedTokens: readAddedTokens(tokens, types),
    ...readSpecialTokens(metadata, tokens, { addBos: true, bosTokenId: 1, eosTokenId: 2 }),
  };
}

/**
 * SentencePiece joins the neighbours whose union has the highest score, the leftmost of equals. As BPE: every way to cut a
 * token in two is a merge, ranked by the token's score; equal scores share a rank, and the library breaks ties to the left.
 * A half is a token or one character (which need not be a token).
 */
function mergeRanksOfScores(
  tokens: readonly string[],
  types: readonly number[],
  scores: readonly number[],
): Map<string, number> {
  const isMergeable = (id: number): boolean =>
    types[id] === tokenType.normal || types[id] === tokenType.unused;
  const known = new Set(tokens.filter((_, id) => isMergeable(id)));
  const descending = [...new Set(scores)].toSorted((a, b) => b - a);
  const rankOfScore = new Map(descending.map((score, rank) => [score, rank]));
  const ranks = new Map<string, number>();
  tokens.forEach((token, id) => {
    if (!isMergeable(id)) return;
    const rank = rankOfScore.get(scores[id]!)!;
    const last = lastCharacterStart(token);
    for (let cut = characterLength(token, 0); cut < token.length; cut += characterLength(token, cut)) {
      const left = token.slice(0, cut);
      const right = token.slice(cut);
      const leftIsPiece = cut === characterLength(token, 0) || known.has(left);
      if (leftIsPiece && (cut === last || known.has(right))) ranks.set(JSON.stringify([left, right]), rank);
    }
  });
  return ranks;
}

/** UTF-16 units of the character at `at`. */
function characterLength(text: string, at: number): number {
  return text.codePointAt(at)! > 0xffff ? 2 : 1;
}

function lastCharacterStart(text: string): number {
  const unit = text.charCodeAt(text.length - 1);
  return text.length - (unit >= 0xdc00 && unit <= 0xdfff && text.length > 1 ? 2 : 1);
}

function readVocabulary(metadata: JsonObject): { tokens: string[]; types: number[] } {
  const tokens = stringArray(metadata, 'tokens');
  if (tokens.length === 0) throw invalidTokenizer('GGUF tokenizer.ggml.tokens', 'the vocabulary is empty');
  const hasTypes = metadata['tokenizer.ggml.token_type'] !== undefined;
  const types = hasTypes ? numberArray(metadata, 'token_type') : tokens.map(() => tokenType.normal as number);
  if (types.length !== tokens.length) {
    throw invalidTokenizer(
      'GGUF tokenizer.ggml.token_type',
      `${types.length} types for ${tokens.length} tokens`,
    );
  }
  return { tokens, types };
}

/** Without a prototype, so that any token can be a key. */
function vocabularyObject(tokens: readonly string[]): Record<string, number> {
  const vocab = Object.create(null) as Record<string, number>;
  tokens.forEach((token, id) => (vocab[token] = id));
  return vocab;
}

/** Control, unknown and user-defined tokens are found in the text before it is split. */
function readAddedTokens(tokens: readonly string[], types: readonly number[]): AddedToken[] {
  const added: AddedToken[] = [];
  tokens.forEach((content, id) => {
    const special = types[id] === tokenType.control || types[id] === tokenType.unknown;
    if ((!special && types[id] !== tokenType.userDefined) || content === '') return;
    added.push({ id, content, special, normalized: false, lstrip: false, rstrip: false });
  });
  return added;
}

type SpecialTokens = Pick<
  TokenizerDefinition,
  | 'bosTokenId'
  | 'eosTokenId'
  | 'prefixIds'
  | 'suffixIds'
  | 'cleanUpSpaces'
  | 'chatTemplates'
  | 'templateTokens'
>;

interface SpecialTokenDefaults {
  readonly addBos: boolean;
  readonly bosTokenId?: number;
  readonly eosTokenId?: number;
}

function readSpecialTokens(
  metadata: JsonObject,
  tokens: readonly string[],
  defaults: SpecialTokenDefaults,
): SpecialTokens {
  const read = (name: string, absent?: number): number | undefined => {
    const id = tokenId(metadata, name) ?? absent;
    if (id === undefined || id < tokens.length) return id;
    throw invalidTokenizer(
      `GGUF tokenizer.ggml.${name}`,
      `${id} lies outside of the ${tokens.length} tokens`,
    );
  };
  const bosTokenId = read('bos_token_id', defaults.bosTokenId);
  const eosTokenId = read('eos_token_id', defaults.eosTokenId);
  const named = {
    bos_token: bosTokenId,
    eos_token: eosTokenId,
    unk_token: read('unknown_token_id'),
    pad_token: read('padding_token_id'),
  };
  const templateTokens = Object.entries(named).flatMap(([name, id]) =>
    id === undefined ? [] : [[name, tokens[id]!]],
  );
  return {
    bosTokenId,
    eosTokenId,
    prefixIds:
      flag(metadata, 'add_bos_token', defaults.addBos) && bosTokenId !== undefined ? [bosTokenId] : [],
    suffixIds: flag(metadata, 'add_eos_token', false) && eosTokenId !== undefined ? [eosTokenId] : [],
    cleanUpSpaces: false,
    chatTemplates: readChatTemplates(metadata),
    templateTokens: Object.fromEntries(templateTokens) as Record<string, string>,
  };
}

/** `tokenizer.chat_template` and the named `tokenizer.chat_template.<name>`. */
function readChatTemplates(metadata: JsonObject): Map<string, string> {
  const key = 'tokenizer.chat_template';
  const templates = new Map<string, string>();
  for (const [name, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') continue;
    if (name === key) templates.set('default', value);
    if (name.startsWith(`${key}.`)) templates.set(name.slice(key.length + 1), value);
  }
  return templates;
}

function tokenId(metadata: JsonObject, name: string): number | undefined {
  const value = metadata[`tokenizer.ggml.${name}`];
  if (value === undefined) return undefined;
  const id = Number(value);
  if (!Number.isInteger(id))
    throw invalidTokenizer(`GGUF tokenizer.ggml.${name}`, `not a token id: ${String(value)}`);
  // Converters write -1 (also as the largest unsigned value) for 'none'.
  return id < 0 || id === 0xffffffff ? undefined : id;
}

function flag(metadata: JsonObject, name: string, absent: boolean): boolean {
  const value = metadata[`tokenizer.ggml.${name}`] ?? absent;
  if (typeof value === 'boolean') return value;
  throw invalidTokenizer(`GGUF tokenizer.ggml.${name}`, `expected true or false, got ${String(value)}`);
}

function stringArray(metadata: JsonObject, name: string): string[] {
  const values = metadata[`tokenizer.ggml.${name}`];
  if (Array.isArray(values) && values.every((value) => typeof value === 'string')) return values;
  throw invalidTokenizer(`GGUF tokenizer.ggml.${name}`, 'missing or not an array of strings');
}

function numberArray(metadata: JsonObject, name: string): number[] {
  const values = metadata[`tokenizer.ggml.${name}`];
  const numbers =
    Array.isArray(values) || ArrayBuffer.isView(values)
      ? Array.from(values as ArrayLike<unknown>, Number)
      : [];
  if (numbers.length > 0 && numbers.every((value) => Number.isFinite(value))) return numbers;
  throw invalidTokenizer(`GGUF tokenizer.ggml.${name}`, 'missing or not an array of numbers');
}
