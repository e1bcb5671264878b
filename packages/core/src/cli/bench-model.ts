/** A model in this process, for `tenon bench latency` and `throughput`. */
import type { BenchRequest } from '../benchmark/requests.js';
import type { RequestOutput } from '../engine/types.js';
import { TenonError } from '../errors.js';
import type { LLM } from '../llm.js';
import { embeddedModelName, findEmbeddedModel } from './embedded-model.js';
import { withProgress } from './load-engine.js';
import type { OptionValue } from './option-values.js';

/** Without a prefix cache, unless asked for: repeated prompts are to be computed. */
export async function loadBenchModel(
  model: string | undefined,
  given: Readonly<Record<string, OptionValue>>,
): Promise<LLM> {
  const { LLM } = await import('../llm.js');
  const named = model === undefined ? { servedModelName: embeddedModelName } : {};
  const options = { ...named, enablePrefixCaching: false, ...given };
  const warn = (level: string, message: string): void => {
    if (level === 'warn') process.stderr.write(`${message}\n`);
  };
  return withProgress(warn, (host) => LLM.load(model ?? findEmbeddedModel(), options, host));
}

/** Every output has the tokens that were asked for, or the figures are worth nothing. */
export function checkOutputs(outputs: readonly RequestOutput[], requests: readonly BenchRequest[]): void {
  for (const [i, { numOutputTokens }] of requests.entries()) {
    const sequence = outputs[i]?.outputs[0];
    const numMade = sequence?.tokenIds.length ?? 0;
    if (numMade === numOutputTokens) continue;
    const problem = `request ${i} ended with ${numMade} tokens of ${numOutputTokens} (${sequence?.finishReason})`;
    throw new TenonError(
      'request.benchmark-failed',
      `${problem}; lower the lengths, or raise --max-model-len`,
    );
  }
}
