/** A Hugging Face tokenizer (tokenizer.json, tokenizer_config.json, chat template) as a `TokenizerDefinition`. */
import { adaptNormalizer, adaptPreTokenizer, asArray } from './adapt-tokenizer-json.js';
import {
  invalidTokenizer,
  isObject,
  type AddedToken,
  type JsonObject,
  type TokenizerDefinition,
} from './tokenizer-definition.js';

/** The tokens that tokenizer_config.json names; they are special, and chat templates see them. */
const namedTokens = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
] as const;

export function huggingFaceDefinition(
  tokenizerJson: unknown,
  tokenizerConfig: JsonObject,
  chatTemplate: string | undefined,
): TokenizerDefinition {
  if (!isObject(tokenizerJson)) throw invalidTokenizer('tokenizer.json', 'expected a JSON object');
  const model = checkModel(tokenizerJson.model);
  const named = readNamedTokens(tokenizerConfig);
  const idOf = vocabularyLookup(model);
  const addedTokens = readAddedTokens(
    tokenizerJson.added_tokens,
    tokenizerConfig,
    Object.values(named),
    idOf,
  );
  const lookup = (token: string | undefined): number | undefined =>
    token === undefined
      ? undefined
      : (addedTokens.find((added) => added.content === token)?.id ?? idOf(token));
  return {
    normalizer: adaptNormalizer(tokenizerJson.normalizer),
    preTokenizer: adaptPreTokenizer(tokenizerJson.pre_tokenizer),
    model,
    decoder: isObject(tokenizerJson.decoder) ? tokenizerJson.decoder : null,
    addedTokens,
    bosTokenId: lookup(named.bos_token),
    eosTokenId: lookup(named.eos_token),
    ...specialTokensAround(tokenizerJson.post_processor),
    // transformers ignores the flag for BPE, whose tokens carry their own spaces.
    cleanUpSpaces: tokenizerConfig.clean_up_tokenization_spaces === true && model.type !== 'BPE',
    chatTemplates: readChatTemplates(tokenizerConfig.chat_template, chatTemplate),
    templateTokens: named,
  };
}

function checkModel(model: unknown): JsonObject {
  const where = 'tokenizer.json model';
  if (!isObject(model)) throw invalidTokenizer(where, 'missing or not an object');
  const type = model.type ?? (Array.isArray(model.merges) ? 'BPE' : undefined);
  if (model.continuing_subword_prefix && type === 'BPE') {
    throw invalidTokenizer(where, 'a BPE with continuing_subword_prefix is not supported');
  }
  if (type === 'BPE' || type === 'WordPiece' || type === 'WordLevel') {
    if (!isObject(model.vocab)) throw invalidTokenizer(`${where}.vocab`, 'expected an object of token to id');
    for (const [token, id] of Object.entries(model.vocab)) {
      if (!isTokenId(id))
        throw invalidTokenizer(`${where}.vocab`, `'${token}' has the id ${JSON.stringify(id)}`);
    }
  }
  if (type === 'BPE') checkMerges(asArray(model.merges, `${where}.merges`), `${where}.merges`);
  if (type === 'Unigram') {
    const pieces = asArray(model.vocab, `${where}.vocab`);
    checkPieces(pieces, `${where}.vocab`);
    checkUnknownId(model.unk_id, pieces.length, `${where}.unk_id`);
  }
  return { ...model, type };
}

function checkMerges(merges: readonly unknown[], where: string): void {
  const isPair = (merge: unknown): boolean =>
    typeof merge === 'string' ? merge.includes(' ') : Array.isArray(merge) && merge.length === 2;
  const bad = merges.findIndex((merge) => !isPair(merge));
  if (bad >= 0) throw invalidTokenizer(where, `entry ${bad} is not a pair: ${JSON.stringify(merges[bad])}`);
}

function checkPieces(pieces: readonly unknown[], where: string): void {
  const isPiece = (piece: unknown): boolean =>
    Array.isArray(piece) && typeof piece[0] === 'string' && typeof piece[1] === 'number';
  const bad = pieces.findIndex((piece) => !isPiece(piece));
  if (bad >= 0)
    throw invalidTokenizer(where, `entry ${bad} is not [token, score]: ${JSON.stringify(pieces[bad])}`);
}

function checkUnknownId(id: unknown, numPieces: number, where: string): void {
  if (id === undefined || id === null || (isTokenId(id) && id < numPieces)) return;
  throw invalidTokenizer(where, `expected the id of one of ${numPieces} pieces, got ${JSON.stringify(id)}`);
}

function isTokenId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0;
}

function vocabularyLookup(model: JsonObject): (token: string) => number | undefined {
  if (Array.isArray(model.vocab)) {
    const ids = new Map(model.vocab.map((piece: [string, number], id) => [piece[0], id]));
    return (token) => ids.get(token);
  }
  const vocab = model.vocab as Record<string, number>;
  return (token) => (Object.hasOwn(vocab, token) ? vocab[token] : undefined);
}

function readNamedTokens(config: JsonObject): Record<string, string> {
  const named: Record<string, string> = {};
  for (const name of namedTokens) {
    const content = tokenContent(config[name]);
    if (content !== undefined) named[name] = content;
  }
  return named;
}

/** A token is a string or `{"content": …}`. */
function tokenContent(value: unknown): string | undefined {
  if (isObject(value) && typeof value.content === 'string') return value.content;
  return typeof value === 'string' ? value : undefined;
}

/**
 * The added tokens of tokenizer.json, then those that only tokenizer_config.json has, then its named special tokens as
 * far as the vocabulary holds them (a named token without an id would lie outside of the model).
 */
function readAddedTokens(
  listed: unknown,
  config: JsonObject,
  named: readonly string[],
  idOf: (token: string) => number | undefined,
): AddedToken[] {
  const tokens = new Map<string, AddedToken>();
  for (const entry of asArray(listed ?? [], 'tokenizer.json added_tokens')) {
    const token = addedToken(entry, isObject(entry) ? entry.id : undefined, 'tokenizer.json added_tokens');
    tokens.set(token.content, token);
  }
  for (const [id, entry] of Object.entries(
    isObject(config.added_tokens_decoder) ? config.added_tokens_decoder : {},
  )) {
    const token = addedToken(entry, Number(id), 'tokenizer_config.json added_tokens_decoder');
    if (!tokens.has(token.content)) tokens.set(token.content, token);
  }
  const extra = config.extra_special_tokens ?? config.additional_special_tokens;
  const extraContents = Array.isArray(extra) ? extra.map(tokenContent) : [];
  for (const content of [...named, ...extraContents]) {
    if (content === undefined) continue;
    const id = tokens.get(content)?.id ?? idOf(content);
    if (id === undefined) continue;
    const known = tokens.get(content) ?? { id, content, normalized: false, lstrip: false, rstrip: false };
    tokens.set(content, { ...known, special: true });
  }
  return [...tokens.values()];
}

function addedToken(entry: unknown, id: unknown, where: string): AddedToken {
  if (!isObject(entry) || typeof entry.content !== 'string' || entry.content === '' || !isTokenId(id)) {
    throw invalidTokenizer(where, `an entry lacks its id or content: ${JSON.stringify(entry)}`);
  }
  if (entry.single_word === true) {
    throw invalidTokenizer(where, `'${entry.content}' is single_word, which is not supported`);
  }
  const special = entry.special === true;
  return {
    id,
    content: entry.content,
    special,
    normalized: typeof entry.normalized === 'boolean' ? entry.normalized : !special,
    lstrip: entry.lstrip === true,
    rstrip: entry.rstrip === true,
  };
}

/**
 * The post-processor alone decides, as in transformers 5, which ignores add_bos_token and add_eos_token of
 * tokenizer_config.json wherever there is a tokenizer.json.
 */
function specialTokensAround(postProcessor: unknown): { prefixIds: number[]; suffixIds: number[] } {
  const around = { prefixIds: [] as number[], suffixIds: [] as number[] };
  if (isObject(postProcessor)) applyPostProcessor(postProcessor, around);
  return around;
}

function applyPostProcessor(
  postProcessor: JsonObject,
  around: { prefixIds: number[]; suffixIds: number[] },
): void {
  const where = 'tokenizer.json post_processor';
  switch (postProcessor.type) {
    case 'ByteLevel':
      return;
    case 'Sequence':
      for (const step of asArray(postProcessor.processors, `${where}.processors`)) {
        if (isObject(step)) applyPostProcessor(step, around);
      }
      return;
    case 'TemplateProcessing': {
      const sides = templateSides(postProcessor, where);
      around.prefixIds.unshift(...sides.before);
      around.suffixIds.push(...sides.after);
      return;
    }
    case 'BertProcessing':
    case 'RobertaProcessing':
      around.prefixIds.unshift(namedPairId(postProcessor.cls, `${where}.cls`));
      around.suffixIds.push(namedPairId(postProcessor.sep, `${where}.sep`));
      return;
    default:
      throw invalidTokenizer(where, `unknown type '${String(postProcessor.type)}'`);
  }
}

/** The ids of a template's special tokens before and after the sequence `A`. */
function templateSides(template: JsonObject, where: string): { before: number[]; after: number[] } {
  const specials = isObject(template.special_tokens) ? template.special_tokens : {};
  const before: number[] = [];
  const after: number[] = [];
  let side = before;
  for (const item of asArray(template.single, `${where}.single`)) {
    if (!isObject(item)) throw invalidTokenizer(`${where}.single`, `unexpected ${JSON.stringify(item)}`);
    if (isObject(item.Sequence)) side = after;
    if (!isObject(item.SpecialToken)) continue;
    const special = specials[String(item.SpecialToken.id)];
    const ids = isObject(special) ? special.ids : undefined;
    if (!Array.isArray(ids) || !ids.every(isTokenId)) {
      throw invalidTokenizer(`${where}.special_tokens`, `no ids for '${String(item.SpecialToken.id)}'`);
    }
    side.push(...ids);
  }
  return { before, after };
}

function namedPairId(pair: unknown, where: string): number {
  if (Array.isArray(pair) && isTokenId(pair[1])) return pair[1];
  throw invalidTokenizer(where, `expected [token, id], got ${JSON.stringify(pair)}`);
}

/** One template, or a list of named ones; chat_template.jinja is the default one. */
function readChatTemplates(configured: unknown, fromFile: string | undefined): Map<string, string> {
  const templates = new Map<string, string>();
  if (typeof configured === 'string') templates.set('default', configured);
  if (Array.isArray(configured)) {
    for (const entry of configured) {
      if (!isObject(entry) || typeof entry.name !== 'string' || typeof entry.template !== 'string') {
        throw invalidTokenizer(
          'tokenizer_config.json chat_template',
          'expected entries {"name", "template"}',
        );
      }
      templates.set(entry.name, entry.template);
    }
  }
  if (fromFile !== undefined) templates.set('default', fromFile);
  return templates;
}
