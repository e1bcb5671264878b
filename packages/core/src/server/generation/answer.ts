/** What completions and chat answers have in common: names, flags, counts. */
import type { FastifyRequest } from 'fastify';

import type { RequestOutput } from '../../engine/types.js';
import { TenonError } from '../../errors.js';
import type { ServerContext } from '../server-context.js';
import { TokenSpelling } from './logprobs.js';
import { requestIdOf } from './request-id.js';
import { type AnswerMetrics, answerMetrics, type Usage, usageOf } from './usage.js';

interface AnswerBody {
  readonly model?: string;
  readonly request_id?: string;
  readonly stream?: boolean;
  readonly stream_options?: {
    readonly include_usage?: boolean | null;
    readonly continuous_usage_stats?: boolean | null;
  };
  readonly stream_interval?: number;
  readonly return_token_ids?: boolean;
  readonly return_tokens_as_token_ids?: boolean;
  readonly priority?: number;
}

export interface Answer {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly systemFingerprint: string;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
  readonly streamInterval: number;
  readonly returnTokenIds: boolean;
  readonly spelling: TokenSpelling;
}

export function beginAnswer(
  idPrefix: string,
  body: AnswerBody,
  request: FastifyRequest,
  context: ServerContext,
): Answer {
  const { engine, options } = context;
  checkStreamOptions(body);
  checkPriority(body.priority, context);
  const includeUsage = options.enableForceIncludeUsage || body.stream_options?.include_usage === true;
  const asksContinuous =
    options.enableForceIncludeUsage || body.stream_options?.continuous_usage_stats === true;
  const spellAsIds = body.return_tokens_as_token_ids ?? options.returnTokensAsTokenIds;
  return {
    id: `${idPrefix}-${requestIdOf(request, body.request_id)}`,
    created: Math.floor(Date.now() / 1000),
    model: servedModel(body.model, context),
    systemFingerprint: context.systemFingerprint,
    includeUsage,
    continuousUsage: includeUsage && asksContinuous,
    streamInterval: body.stream_interval ?? options.streamInterval,
    returnTokenIds: body.return_token_ids === true,
    spelling: new TokenSpelling(engine.tokenizer, spellAsIds),
  };
}

/** The name that the answer carries; unknown names are a 404. */
export function servedModel(asked: string | undefined, context: ServerContext): string {
  const { servedModelNames } = context.options;
  if (asked === undefined || asked === '') return servedModelNames[0] ?? context.engine.info.modelName;
  if (servedModelNames.includes(asked)) return asked;
  throw new TenonError(
    'request.model-not-found',
    `the model '${asked}' does not exist; served: ${servedModelNames.join(', ')}`,
    { param: 'model' },
  );
}

function checkStreamOptions(body: AnswerBody): void {
  if (body.stream === true) return;
  for (const field of ['stream_options', 'stream_interval'] as const) {
    if (body[field] === undefined) continue;
    throw new TenonError('request.invalid-value', `'${field}' needs 'stream': true`, { param: field });
  }
}

function checkPriority(priority: number | undefined, { engine }: ServerContext): void {
  if (priority === undefined || priority === 0 || engine.info.priorityScheduling) return;
  throw new TenonError(
    'request.invalid-value',
    `'priority' ${priority} needs a server that runs with --scheduling-policy priority`,
    { param: 'priority' },
  );
}

/** Counts of an answer, over its prompts and choices. */
export class TokenCounts {
  readonly #prompts = new Map<number, { readonly numTokens: number; readonly numCached: number }>();
  /** Generated tokens so far, by choice. */
  readonly #generated = new Map<number, number>();
  #numGenerated = 0;

  addPrompt(promptIndex: number, output: RequestOutput): void {
    if (this.#prompts.has(promptIndex)) return;
    this.#prompts.set(promptIndex, {
      numTokens: output.promptTokenIds.length,
      numCached: output.numCachedTokens,
    });
  }

  addGenerated(choiceIndex: number, numTokens: number): void {
    this.#generated.set(choiceIndex, (this.#generated.get(choiceIndex) ?? 0) + numTokens);
    this.#numGenerated += numTokens;
  }

  get numGenerated(): number {
    return this.#numGenerated;
  }

  /** Of one choice, as `continuous_usage_stats` counts. */
  choiceUsage(promptIndex: number, choiceIndex: number): Usage {
    return usageOf(this.#prompts.get(promptIndex)?.numTokens ?? 0, this.#generated.get(choiceIndex) ?? 0);
  }

  usage(withDetails: boolean): Usage {
    const prompts = [...this.#prompts.values()];
    const numPrompt = prompts.reduce((sum, { numTokens }) => sum + numTokens, 0);
    const numCached = prompts.reduce((sum, { numCached: cached }) => sum + cached, 0);
    return usageOf(numPrompt, this.#numGenerated, withDetails ? numCached : undefined);
  }
}

/** `metrics` of an answer with one choice, where --enable-per-request-metrics asks for them. */
export function metricsOf(
  output: RequestOutput | undefined,
  numChoices: number,
  numGenerated: number,
  { options }: ServerContext,
): AnswerMetrics | undefined {
  if (!options.enablePerRequestMetrics || numChoices !== 1 || output === undefined) return undefined;
  return answerMetrics(output.metrics, numGenerated);
}
