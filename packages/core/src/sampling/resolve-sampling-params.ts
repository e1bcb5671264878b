import { isDeepStrictEqual } from 'node:util';
import { TenonError } from '../errors.js';
import type { ExtraArgs } from '../extensions/logits-processor.js';
import type { RepetitionDetection } from './repetition.js';
import type { SamplingParams } from './sampling-params.js';

/** vLLM's defaults. */
export const samplingDefaults: SamplingParams = {
  n: 1,
  maxTokens: undefined,
  minTokens: 0,
  temperature: 1,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  seed: undefined,
  stop: [],
  stopTokenIds: [],
  includeStopStrInOutput: false,
  ignoreEos: false,
  logitBias: {},
  allowedTokenIds: undefined,
  badWords: [],
  extraArgs: {},
  repetitionDetection: undefined,
  logprobs: undefined,
  promptLogprobs: undefined,
  skipSpecialTokens: true,
  detokenize: true,
  outputKind: 'cumulative',
};

export interface SamplingLimits {
  readonly vocabSize: number;
  /** Top logprobs that a request may ask for; -1: the whole vocabulary. */
  readonly maxLogprobs: number;
  /** How error messages spell a field: as the library does, or as the HTTP API does. */
  readonly spelling?: 'camelCase' | 'snake_case';
  /** Those of the engine, and the extra arguments that each reads; none if absent. */
  readonly logitsProcessors?: readonly { readonly name: string; readonly args: readonly string[] }[];
}

/** Choices of one request. */
export const maxSequences = 16_384;
const maxStopStrings = 4;
const maxBadWords = 128;
const maxBias = 100;
/** Below this, sampling is greedy; up to `minTemperature` it would overflow. */
const greedyTemperature = 1e-5;
const minTemperature = 0.01;

/** Complete and checked parameters: what was given, else the model's own defaults, else vLLM's. */
export function resolveSamplingParams(
  given: Partial<SamplingParams>,
  defaults: Partial<SamplingParams>,
  limits: SamplingLimits,
): SamplingParams {
  const merged = { ...samplingDefaults, ...withoutUndefined(defaults), ...withoutUndefined(given) };
  const check = new Checker(limits);
  checkTypes(merged, check);
  checkNumbers(merged, check);
  checkLists(merged, check);
  checkRepetition(merged.repetitionDetection, check);
  checkExtraArgs(merged.extraArgs, check, limits.logitsProcessors ?? []);
  return normalize(merged, limits);
}

function checkTypes(params: SamplingParams, check: Checker): void {
  check.boolean('includeStopStrInOutput', params.includeStopStrInOutput);
  check.boolean('ignoreEos', params.ignoreEos);
  check.boolean('skipSpecialTokens', params.skipSpecialTokens);
  check.boolean('detokenize', params.detokenize);
  check.that(
    ['delta', 'cumulative', 'final'].includes(params.outputKind),
    'outputKind',
    params.outputKind,
    "'delta', 'cumulative' or 'final'",
  );
}

function checkNumbers(params: SamplingParams, check: Checker): void {
  const { temperature, topP, minP, repetitionPenalty, maxTokens, minTokens, seed } = params;
  check.integer('n', params.n, 1, maxSequences);
  check.number('temperature', temperature, 0, 2);
  check.that(
    params.n === 1 || temperature >= greedyTemperature,
    'n',
    params.n,
    '1 when temperature is 0 (all sequences would be equal)',
  );
  check.number('topP', topP, 0, 1);
  check.that(topP > 0, 'topP', topP, 'a number above 0 and at most 1');
  check.integer('topK', params.topK, -1, Number.MAX_SAFE_INTEGER);
  check.number('minP', minP, 0, 1);
  check.number('presencePenalty', params.presencePenalty, -2, 2);
  check.number('frequencyPenalty', params.frequencyPenalty, -2, 2);
  check.that(
    Number.isFinite(repetitionPenalty) && repetitionPenalty > 0,
    'repetitionPenalty',
    repetitionPenalty,
    'a number above 0',
  );
  if (maxTokens !== undefined) check.integer('maxTokens', maxTokens, 1, Number.MAX_SAFE_INTEGER);
  check.integer('minTokens', minTokens, 0, Number.MAX_SAFE_INTEGER);
  check.that(
    maxTokens === undefined || minTokens <= maxTokens,
    'minTokens',
    minTokens,
    `at most ${check.name('maxTokens')} (${maxTokens})`,
  );
  if (seed !== undefined) check.integer('seed', seed, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  check.logprobs('logprobs', params.logprobs);
  check.logprobs('promptLogprobs', params.promptLogprobs);
}

function checkLists(params: SamplingParams, check: Checker): void {
  check.list(
    'stop',
    params.stop,
    maxStopStrings,
    (entry) => typeof entry === 'string' && entry !== '',
    'a string that is not empty',
  );
  check.list(
    'badWords',
    params.badWords,
    maxBadWords,
    (entry) => typeof entry === 'string' && entry !== '',
    'a string that is not empty',
  );
  check.tokens('stopTokenIds', params.stopTokenIds);
  if (params.allowedTokenIds !== undefined) {
    check.tokens('allowedTokenIds', params.allowedTokenIds);
    check.that(params.allowedTokenIds.length > 0, 'allowedTokenIds', '[]', 'at least one token id');
  }
  const bias = params.logitBias;
  check.that(
    typeof bias === 'object' && bias !== null && !Array.isArray(bias),
    'logitBias',
    bias,
    'an object of token ids and numbers',
  );
  check.tokens('logitBias', Object.keys(bias).map(Number));
  for (const value of Object.values(bias)) check.that(Number.isFinite(value), 'logitBias', value, 'numbers');
}

function checkRepetition(detection: RepetitionDetection | undefined, check: Checker): void {
  if (detection === undefined) return;
  const { minPatternSize, maxPatternSize, minCount } = detection;
  const holds =
    [minPatternSize, maxPatternSize, minCount].every(Number.isSafeInteger) &&
    minPatternSize >= 1 &&
    maxPatternSize >= minPatternSize &&
    minCount >= 2;
  const names = ['minPatternSize', 'maxPatternSize', 'minCount'].map((name) => check.name(name));
  const expected = `integers: ${names[0]} at least 1, ${names[1]} no smaller, ${names[2]} at least 2`;
  check.that(holds, 'repetitionDetection', detection, expected);
}

/** Arguments that nobody reads are a mistake: the answer would not be what was asked for. */
function checkExtraArgs(
  args: ExtraArgs,
  check: Checker,
  processors: NonNullable<SamplingLimits['logitsProcessors']>,
): void {
  const isObject = typeof args === 'object' && !Array.isArray(args);
  check.that(isObject, 'extraArgs', args, 'an object');
  check.that(isJson(args), 'extraArgs', 'not JSON', 'an object of JSON values');
  const unread = Object.keys(args).find((name) => !processors.some((entry) => entry.args.includes(name)));
  if (unread === undefined) return;
  const known = processors.flatMap((entry) => entry.args.map((name) => `${name} (${entry.name})`));
  const remedy =
    known.length > 0 ? `they read ${known.join(', ')}` : 'start the engine with logits-processors';
  const message = `${check.name('extraArgs')} has '${unread}', which no logits processor reads; ${remedy}`;
  throw new TenonError('request.invalid-value', message, { param: check.name('extraArgs') });
}

function isJson(value: unknown): boolean {
  try {
    return isDeepStrictEqual(JSON.parse(JSON.stringify(value)), value);
  } catch {
    return false;
  }
}

/** The same meaning in the form that the sampler wants. */
function normalize(params: SamplingParams, limits: SamplingLimits): SamplingParams {
  const greedy = params.temperature < greedyTemperature;
  const wholeVocabulary = (count: number | undefined) => (count === -1 ? limits.vocabSize : count);
  return {
    ...params,
    temperature: greedy ? 0 : Math.max(params.temperature, minTemperature),
    topP: greedy ? 1 : params.topP,
    topK: greedy || params.topK <= 0 || params.topK >= limits.vocabSize ? 0 : params.topK,
    minP: greedy ? 0 : params.minP,
    seed: params.seed === -1 ? undefined : params.seed,
    logitBias: Object.fromEntries(
      Object.entries(params.logitBias).map(([token, value]) => [
        token,
        Math.min(maxBias, Math.max(-maxBias, value)),
      ]),
    ),
    logprobs: wholeVocabulary(params.logprobs),
    promptLogprobs: wholeVocabulary(params.promptLogprobs),
  };
}

/** Throws `request.invalid-value`, naming field, value and what was expected. */
class Checker {
  constructor(private readonly limits: SamplingLimits) {}

  name(field: string): string {
    if (this.limits.spelling !== 'snake_case') return field;
    if (field === 'extraArgs') return 'vllm_xargs';
    return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  }

  that(holds: boolean, field: keyof SamplingParams, value: unknown, expected: string): void {
    if (holds) return;
    const name = this.name(field);
    const shown = typeof value === 'object' ? JSON.stringify(value) : String(value);
    throw new TenonError('request.invalid-value', `${name} is ${shown}; expected ${expected}`, {
      param: name,
    });
  }

  boolean(field: keyof SamplingParams, value: unknown): void {
    this.that(typeof value === 'boolean', field, value, 'true or false');
  }

  number(field: keyof SamplingParams, value: unknown, min: number, max: number): void {
    const holds = typeof value === 'number' && value >= min && value <= max;
    this.that(holds, field, value, `a number from ${min} to ${max}`);
  }

  integer(field: keyof SamplingParams, value: unknown, min: number, max: number): void {
    const holds = Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max;
    const range =
      max === Number.MAX_SAFE_INTEGER
        ? min === -max
          ? ''
          : ` of at least ${min}`
        : ` from ${min} to ${max}`;
    this.that(holds, field, value, `an integer${range}`);
  }

  logprobs(field: 'logprobs' | 'promptLogprobs', value: number | undefined): void {
    if (value === undefined) return;
    const most = this.limits.maxLogprobs === -1 ? this.limits.vocabSize : this.limits.maxLogprobs;
    const wanted = value === -1 ? this.limits.vocabSize : value;
    const holds = Number.isInteger(value) && value >= -1 && wanted <= most;
    this.that(
      holds,
      field,
      value,
      `an integer from 0 to ${most} (see max-logprobs), or -1 for the vocabulary where that allows it`,
    );
  }

  list(
    field: keyof SamplingParams,
    value: unknown,
    maxLength: number,
    holds: (entry: unknown) => boolean,
    expected: string,
  ): void {
    this.that(Array.isArray(value), field, value, 'a list');
    const entries = value as readonly unknown[];
    this.that(
      entries.length <= maxLength,
      field,
      `a list of ${entries.length}`,
      `at most ${maxLength} entries`,
    );
    for (const entry of entries) this.that(holds(entry), field, entry, `every entry to be ${expected}`);
  }

  tokens(field: keyof SamplingParams, value: unknown): void {
    const { vocabSize } = this.limits;
    const holds = (entry: unknown) =>
      Number.isInteger(entry) && (entry as number) >= 0 && (entry as number) < vocabSize;
    this.list(field, value, Infinity, holds, `a token id below ${vocabSize}`);
  }
}

function withoutUndefined<T extends object>(object: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) => value !== undefined && value !== null),
  ) as Partial<T>;
}
