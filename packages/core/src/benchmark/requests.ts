/** What a benchmark asks for: prompts and lengths of answers, made from a seed or read from a file. */
import { readFileSync } from 'node:fs';

import { TenonError } from '../errors.js';
import type { Random } from './random.js';

export interface BenchRequest {
  readonly prompt: string | readonly number[];
  /** Undefined: only the server knows, as the prompt is text. */
  readonly numPromptTokens: number | undefined;
  readonly numOutputTokens: number;
}

/** Numbers of tokens, both ends included. */
export interface LengthRange {
  readonly min: number;
  readonly max: number;
}

export interface RandomRequestOptions {
  readonly numRequests: number;
  readonly inputLen: LengthRange;
  readonly outputLen: LengthRange;
  /** Tokens in front of every prompt, the same in all. */
  readonly prefixLen: number;
  /** uniform over the ranges; lognormal: most are short and few are long, as in conversations. */
  readonly lengths: 'uniform' | 'lognormal';
  /** Prompts are token ids below this. */
  readonly vocabSize: number;
}

/** Special tokens tend to be the first of a vocabulary. */
const firstTokenId = 32;

export function randomRequests(options: RandomRequestOptions, random: Random): BenchRequest[] {
  const { numRequests, inputLen, outputLen, prefixLen, lengths, vocabSize } = options;
  const draw = lengths === 'uniform' ? uniformLength : lognormalLength;
  const tokens = (count: number): number[] =>
    Array.from({ length: count }, () => random.integer(Math.min(firstTokenId, vocabSize - 1), vocabSize - 1));
  const prefix = tokens(prefixLen);
  return Array.from({ length: numRequests }, () => {
    const prompt = [...prefix, ...tokens(draw(inputLen, random))];
    return { prompt, numPromptTokens: prompt.length, numOutputTokens: draw(outputLen, random) };
  });
}

function uniformLength({ min, max }: LengthRange, random: Random): number {
  return random.integer(min, max);
}

/** The range is of two standard deviations to either side of the median; lengths outside it are cut. */
function lognormalLength({ min, max }: LengthRange, random: Random): number {
  const center = (Math.log(min) + Math.log(max)) / 2;
  const deviation = (Math.log(max) - Math.log(min)) / 4;
  const length = Math.round(Math.exp(center + deviation * random.normal()));
  return Math.min(max, Math.max(min, length));
}

const words =
  'the of and to in is you that it he was for on are as with his they at be this have from or one had by'.split(
    ' ',
  );

/** As text, for servers that take no token ids: a word for each token. */
export function asText(request: BenchRequest): BenchRequest {
  const { prompt, numOutputTokens } = request;
  if (typeof prompt === 'string') return request;
  const text = prompt.map((tokenId) => words[tokenId % words.length]).join(' ');
  return { prompt: text, numPromptTokens: undefined, numOutputTokens };
}

/** Lines of `{"prompt": "…", "output_tokens": 128}`; `output_tokens` may be left out. */
export function customRequests(file: string, defaultOutputLen: number): BenchRequest[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  const requests = lines.flatMap((line, i) =>
    line.trim() === '' ? [] : [customRequest(line, `${file}:${i + 1}`, defaultOutputLen)],
  );
  if (requests.length > 0) return requests;
  throw new TenonError('config.invalid-option', `--dataset-path ${file} has no lines`);
}

function customRequest(line: string, where: string, defaultOutputLen: number): BenchRequest {
  const { prompt, output_tokens: numOutputTokens = defaultOutputLen } = parseLine(line);
  if (typeof prompt === 'string' && prompt !== '' && Number.isInteger(numOutputTokens)) {
    return { prompt, numPromptTokens: undefined, numOutputTokens: Number(numOutputTokens) };
  }
  const expected = 'an object with a text "prompt" and, if any, an integer "output_tokens"';
  throw new TenonError('config.invalid-option', `${where} is ${line.slice(0, 80)}; expected ${expected}`);
}

function parseLine(line: string): { prompt?: unknown; output_tokens?: unknown } {
  try {
    return (JSON.parse(line) ?? {}) as object;
  } catch {
    return {};
  }
}
