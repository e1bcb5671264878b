/** --log-requests: a line when a request for the engine arrives, one when it has ended. Nothing else logs what clients send. */
import type { FastifyBaseLogger } from 'fastify';

import type { Engine, FinishedRequest, GenerateRequest, Prompt } from '../engine/types.js';
import { samplingDefaults } from '../sampling/resolve-sampling-params.js';
import type { SamplingParams } from '../sampling/sampling-params.js';

export class GenerationLog {
  readonly #logger: FastifyBaseLogger;
  /** Characters of a prompt's text, or its token ids, that a line has at most. */
  readonly #maxLogLen: number;

  constructor(engine: Engine, logger: FastifyBaseLogger, maxLogLen: number) {
    this.#logger = logger;
    this.#maxLogLen = maxLogLen;
    engine.onRequestFinished((request) => this.#logger.info(endLine(request)));
  }

  arrived({ requestId, prompt, params }: GenerateRequest): void {
    const shown = shownPrompt(prompt, this.#maxLogLen);
    this.#logger.info(`${requestId} arrived: ${shown}; ${shownParams(params)}`);
  }
}

/** As JSON, so that nothing in it can steer a terminal. */
function shownPrompt(prompt: Prompt, maxLength: number): string {
  if ('text' in prompt) {
    const { text } = prompt;
    const cut = text.length > maxLength ? `… of ${text.length} characters` : '';
    return `prompt ${JSON.stringify(text.slice(0, maxLength))}${cut}`;
  }
  const { tokenIds } = prompt;
  const cut = tokenIds.length > maxLength ? `… of ${tokenIds.length} tokens` : '';
  return `prompt ${JSON.stringify(tokenIds.slice(0, maxLength))}${cut}`;
}

/** What is not by default. */
function shownParams(params: SamplingParams): string {
  const given = Object.entries(params).filter(
    ([name, value]) =>
      JSON.stringify(value) !== JSON.stringify(samplingDefaults[name as keyof SamplingParams]) &&
      name !== 'outputKind',
  );
  return given.map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(', ');
}

function endLine(request: FinishedRequest): string {
  const { requestId, finishReason, numPromptTokens, numCachedTokens, numGenerationTokens } = request;
  const { metrics, finishedMs } = request;
  const after = (ms: number): string =>
    ms === 0 ? 'never' : `after ${(ms - metrics.arrivalMs).toFixed(0)} ms`;
  const tokens = `prompt ${numPromptTokens} tokens (${numCachedTokens} cached), answer ${numGenerationTokens} tokens`;
  const times = `started ${after(metrics.scheduledMs)}, first token ${after(metrics.firstTokenMs)}, end ${after(finishedMs)}`;
  return `${requestId} ended (${finishReason}): ${tokens}; ${times}`;
}
