/** From an option's words to its value, with one clear error for what is none. */
import { TenonError } from '../errors.js';
import type { OptionRow } from './option-table.js';

export type OptionValue = string | number | boolean | readonly string[] | Readonly<Record<string, unknown>>;

const decimalFactors: Readonly<Record<string, number>> = { k: 1e3, m: 1e6, g: 1e9, t: 1e12 };
const binaryFactors: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** `source`: how messages name the option: `--max-model-len`, `TENON_API_KEY`. */
export function parseOptionValue(row: OptionRow, words: readonly string[], source: string): OptionValue {
  const text = words.join(' ');
  switch (row.type) {
    case 'text':
      return parseText(row, text, source);
    case 'integer':
      return row.words?.includes(text) ? text : inRange(row, parseInteger(text, source), source);
    case 'number':
      return inRange(row, parseNumber(text, source), source);
    case 'flag':
      return parseFlag(text, source);
    case 'list':
      return parseList(words, source);
    case 'json':
      return parseObject(text, source);
  }
}

function parseText({ choices }: OptionRow, text: string, source: string): string {
  if (choices === undefined || choices.includes(text)) return text;
  throw invalid(source, text, `one of ${choices.join(', ')}`);
}

/** `512`, `1k` = 1000, `1K` = 1024, `25.6k` = 25600. */
export function parseInteger(text: string, source: string): number {
  const match = /^([+-]?\d+(?:\.\d+)?)([kmgtKMGT])?$/.exec(text.trim());
  const [, digits = '', suffix = ''] = match ?? [];
  const factor = decimalFactors[suffix] ?? binaryFactors[suffix] ?? 1;
  const value = Math.round(Number(digits) * factor * 1e6) / 1e6;
  if (match === null || !Number.isSafeInteger(value) || (digits.includes('.') && suffix in binaryFactors)) {
    throw invalid(source, text, 'an integer, such as 4096, 4k (4000) or 4K (4096)');
  }
  return value;
}

function parseNumber(text: string, source: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw invalid(source, text, 'a number');
  return value;
}

function inRange({ min, max }: OptionRow, value: number, source: string): number {
  if (min !== undefined && value < min) throw invalid(source, String(value), `at least ${min}`);
  if (max !== undefined && value > max) throw invalid(source, String(value), `at most ${max}`);
  return value;
}

function parseFlag(text: string, source: string): boolean {
  if (['true', '1', ''].includes(text.toLowerCase())) return true;
  if (['false', '0'].includes(text.toLowerCase())) return false;
  throw invalid(source, text, 'true or false');
}

function parseList(words: readonly string[], source: string): readonly string[] {
  const [first = ''] = words;
  if (words.length > 1 || !first.startsWith('[')) return words;
  const list = parseJson(first, source);
  if (Array.isArray(list) && list.every((entry) => typeof entry === 'string')) return list;
  throw invalid(source, first, 'a JSON list of strings');
}

function parseObject(text: string, source: string): Readonly<Record<string, unknown>> {
  const value = parseJson(text, source);
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw invalid(source, text, 'a JSON object');
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalid(source, text, 'JSON');
  }
}

/** `--hf-overrides.rope_scaling.factor 4`: a value deep in an object; JSON where it is JSON, else text. */
export function setDotted(target: Record<string, unknown>, path: readonly string[], text: string): void {
  const [key = '', ...rest] = path;
  if (rest.length === 0) {
    target[key] = jsonOrText(text);
    return;
  }
  const inner = target[key];
  const next = typeof inner === 'object' && inner !== null ? { ...(inner as Record<string, unknown>) } : {};
  target[key] = next;
  setDotted(next, rest, text);
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function invalid(source: string, text: string, expected: string): TenonError {
  const code = source.startsWith('-') ? 'config.invalid-option' : 'config.invalid-environment';
  return new TenonError(code, `${source} is '${text}'; expected ${expected}`, { param: source });
}
