/** Logits processors' answers, checked and laid over what the request itself asks of its next token. */
import { TenonError } from '../errors.js';
import { tokensThatCompleteBadWords } from './bad-words.js';
import type { LogitsEdits, TokenList } from '../extensions/logits-processor.js';
import type { SamplerRow } from './sampler-row.js';

/** What one processor answered. */
export interface ProcessorAnswer {
  readonly name: string;
  readonly edits: LogitsEdits;
}

/**
 * `row` with the answers for the token after `outputTokenIds`.
 * @throws `internal.extension-failed`, naming the processor; `request.invalid-value` where only the request's own fields leave
 * no token that may come.
 */
export function editSamplerRow(
  row: SamplerRow,
  answers: readonly ProcessorAnswer[],
  outputTokenIds: readonly number[],
  vocabSize: number,
): SamplerRow {
  if (answers.length === 0) return row;
  for (const { name, edits } of answers) checkEdits(name, edits, vocabSize);
  const allowedTokens = allowedBy(answers, row.allowedTokens.length > 0 ? row.allowedTokens : undefined);
  const suppressTokens = suppressedBy(
    answers,
    outputTokenIds.length < row.minTokens ? row.suppressTokens : none,
  );
  const badWordTokens = tokensThatCompleteBadWords(row.badWords, outputTokenIds);
  if (!isOneLeft(allowedTokens, suppressTokens, badWordTokens, vocabSize)) throw noneLeft(answers, vocabSize);
  return {
    ...row,
    ...biasOf(row, answers),
    allowedTokens: allowedTokens ?? row.allowedTokens,
    suppressTokens,
    minTokens: suppressTokens.length > 0 ? Infinity : 0,
  };
}

const none = new Int32Array(0);

/** Undefined stands for all tokens. */
function allowedBy(answers: readonly ProcessorAnswer[], own: Int32Array | undefined): Int32Array | undefined {
  return answers.reduce((list, { edits }) => intersection(list, edits.allowed), own);
}

function intersection(list: Int32Array | undefined, other: TokenList | undefined): Int32Array | undefined {
  if (other === undefined) return list;
  if (list === undefined) return new Int32Array(other);
  const others = new Set(other);
  return list.filter((token) => others.has(token));
}

function suppressedBy(answers: readonly ProcessorAnswer[], own: Int32Array): Int32Array {
  const lists = [...answers.map(({ edits }) => edits.suppress ?? none), own];
  const joined = new Int32Array(lists.reduce((length, list) => length + list.length, 0));
  let offset = 0;
  for (const list of lists) {
    joined.set(list, offset);
    offset += list.length;
  }
  return joined;
}

function biasOf(
  { biasTokens, biasValues }: SamplerRow,
  answers: readonly ProcessorAnswer[],
): Pick<SamplerRow, 'biasTokens' | 'biasValues'> {
  const pairs = answers.flatMap(({ edits }) => edits.bias ?? []);
  if (pairs.length === 0) return { biasTokens, biasValues };
  const sums = new Map<number, number>();
  biasTokens.forEach((token, i) => sums.set(token, biasValues[i]!));
  for (const [token, value] of pairs) sums.set(token, (sums.get(token) ?? 0) + value);
  return { biasTokens: Int32Array.from(sums.keys()), biasValues: Float32Array.from(sums.values()) };
}

function isOneLeft(
  allowed: Int32Array | undefined,
  suppressed: Int32Array,
  badWordTokens: readonly number[],
  vocabSize: number,
): boolean {
  if (allowed === undefined && suppressed.length + badWordTokens.length < vocabSize) return true;
  const forbidden = new Set(suppressed);
  for (const token of badWordTokens) forbidden.add(token);
  return allowed === undefined ? forbidden.size < vocabSize : allowed.some((token) => !forbidden.has(token));
}

function noneLeft(answers: readonly ProcessorAnswer[], vocabSize: number): TenonError {
  const names = answers.map(({ name }) => `'${name}'`).join(' and ');
  const isLeftWithoutRequest = isOneLeft(
    allowedBy(answers, undefined),
    suppressedBy(answers, none),
    [],
    vocabSize,
  );
  if (!isLeftWithoutRequest)
    return new TenonError(
      'internal.extension-failed',
      `logits processor ${names} leaves no token that may come next`,
    );
  const message = `allowed_token_ids, bad_words or min_tokens of the request leave none of the tokens that logits processor ${names} lets come next; ask for less`;
  return new TenonError('request.invalid-value', message);
}

function checkEdits(name: string, edits: LogitsEdits, vocabSize: number): void {
  if (typeof edits !== 'object') throw wrong(name, `answered ${shown(edits)}`, 'an object, or undefined');
  for (const field of Object.keys(edits)) {
    if (!['allowed', 'suppress', 'bias'].includes(field))
      throw wrong(name, `answered a field '${field}'`, 'allowed, suppress or bias');
  }
  checkTokens(name, 'allowed', edits.allowed, vocabSize);
  checkTokens(name, 'suppress', edits.suppress, vocabSize);
  checkBias(name, edits.bias, vocabSize);
}

function checkTokens(name: string, field: string, list: TokenList | undefined, vocabSize: number): void {
  if (list === undefined) return;
  if (!Array.isArray(list) && !(list instanceof Int32Array))
    throw wrong(name, `answered ${field} ${shown(list)}`, 'a list of token ids');
  for (let i = 0; i < list.length; i++) checkToken(name, field, list[i]!, vocabSize);
}

function checkToken(name: string, field: string, token: number, vocabSize: number): void {
  if (Number.isInteger(token) && token >= 0 && token < vocabSize) return;
  throw wrong(name, `answered the token ${shown(token)} in ${field}`, `an id from 0 to ${vocabSize - 1}`);
}

function checkBias(name: string, bias: LogitsEdits['bias'], vocabSize: number): void {
  if (bias === undefined) return;
  if (!Array.isArray(bias)) throw wrong(name, `answered bias ${shown(bias)}`, 'a list of [token id, value]');
  for (const pair of bias as readonly unknown[]) {
    if (!Array.isArray(pair) || pair.length !== 2)
      throw wrong(name, `answered ${shown(pair)} in bias`, '[token id, value]');
    const [token, value] = pair as [number, number];
    checkToken(name, 'bias', token, vocabSize);
    if (!Number.isFinite(Math.fround(value)))
      throw wrong(name, `answered the bias ${shown(value)} of token ${token}`, 'a finite number');
  }
}

function wrong(name: string, what: string, expected: string): TenonError {
  return new TenonError(
    'internal.extension-failed',
    `logits processor '${name}' ${what}; expected ${expected}`,
  );
}

function shown(value: unknown): string {
  return typeof value === 'object' && value !== null ? (JSON.stringify(value) ?? 'an object') : String(value);
}
