/** A tiny model behind the real engine, with so few blocks of cache that sequences have to give way. */
import { createEngine } from '../../../container.js';
import type { Engine, GenerateRequest } from '../../../engine/types.js';
import { resolveSamplingParams } from '../../../sampling/resolve-sampling-params.js';
import type { SamplingParams } from '../../../sampling/sampling-params.js';
import { fail } from '../../case.js';
import type { Kit } from '../../kit.js';
import { ObservedBackend } from '../../observed-backend.js';
import type { Random } from '../../random.js';
import { familyOf, writeModel } from '../../tiny-model.js';

export interface ServedRequest {
  readonly prompt: readonly number[];
  readonly params: Partial<SamplingParams>;
}

export interface Answer {
  readonly tokenIds: readonly number[];
  readonly finishReason: string | undefined;
}

const longest = 64;

export class ServedModel {
  readonly engine: Engine;
  readonly observed: ObservedBackend;
  #numRequests = 0;

  private constructor(engine: Engine, observed: ObservedBackend) {
    this.engine = engine;
    this.observed = observed;
  }

  static async start(kit: Kit): Promise<ServedModel> {
    const observed = new ObservedBackend(kit.module);
    const { constraints } = await kit.group();
    const { path } = await writeModel(kit, familyOf('llama'), { num_hidden_layers: 1 });
    const [unit] = constraints.blockSizes;
    const perSequence = constraints.kvLayout === 'slots' ? 1 : Math.ceil(longest / unit!);
    const { engine } = await createEngine(
      path,
      {
        device: kit.device.id,
        skipTokenizerInit: true,
        maxModelLen: longest,
        maxNumSeqs: Math.min(8, constraints.maxSeqs ?? 8, constraints.decodeBuckets?.at(-1) ?? 8),
        maxNumBatchedTokens: Math.min(96, constraints.maxTokens ?? 96, constraints.tokenBuckets.at(-1) ?? 96),
        numGpuBlocksOverride: Math.max(3, 3 * perSequence),
        maxLogprobs: 5,
        seed: kit.options.seed,
      },
      { backend: observed.module },
    );
    return new ServedModel(engine, observed);
  }

  /** The whole answer; with `abortAfter`, the request is aborted after so many outputs. */
  async answer({ prompt, params }: ServedRequest, abortAfter = Infinity): Promise<Answer> {
    const { info, defaultSamplingParams } = this.engine;
    const given = { detokenize: false, outputKind: 'cumulative', ...params } as const;
    const abort = new AbortController();
    const request: GenerateRequest = {
      requestId: `r${this.#numRequests++}`,
      prompt: { tokenIds: prompt },
      params: resolveSamplingParams(given, defaultSamplingParams, info),
      signal: abort.signal,
    };
    let answer: Answer = { tokenIds: [], finishReason: undefined };
    let numOutputs = 0;
    const answering = this.engine.generate(request);
    if (abortAfter === 0) setImmediate(() => abort.abort());
    for await (const { outputs } of answering) {
      const [output] = outputs;
      if (output !== undefined)
        answer = { tokenIds: [...output.tokenIds], finishReason: output.finishReason };
      if (++numOutputs === abortAfter) abort.abort();
    }
    return answer;
  }

  /** Nothing runs, waits or holds blocks any more. */
  async expectIdle(): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      const { numRunning, numWaiting, numStepsInFlight, numUsedBlocks } = this.engine.stats();
      if (numRunning + numWaiting + numStepsInFlight + numUsedBlocks === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    fail(`the engine is not idle after its last request: ${JSON.stringify(this.engine.stats())}`);
  }

  async close(): Promise<void> {
    const { fallbacks = 0 } = this.observed.executable?.counters?.() ?? {};
    await this.engine.close();
    if (fallbacks > 0) fail(`${fallbacks} ops ran elsewhere than negotiation said (counters().fallbacks)`);
  }
}

/** Prompts that share beginnings, and every kind of sampling. */
export function randomRequest(random: Random): ServedRequest {
  const shared = Array.from({ length: 36 }, (_, i) => (i * 7 + 3) % 96);
  const prefix = shared.slice(0, random.pick([0, 0, 10, 36]));
  const prompt = [...prefix, ...random.ints(1 + random.below(12), 96)];
  const maybe = <T>(value: T): T | undefined => (random.below(4) === 0 ? value : undefined);
  const params = {
    maxTokens: 1 + random.below(14),
    temperature: random.pick([0, 0, 0.7, 1.2]),
    seed: random.below(2 ** 31),
    topP: maybe(0.9),
    topK: maybe(8),
    minP: maybe(0.05),
    repetitionPenalty: maybe(1.2),
    presencePenalty: maybe(0.5),
    frequencyPenalty: maybe(0.25),
    minTokens: maybe(1),
    ignoreEos: random.below(2) === 0,
    stopTokenIds: maybe([11, 12]),
    logitBias: maybe({ 5: 2, 6: -3 }),
    logprobs: maybe(3),
    promptLogprobs: random.below(12) === 0 ? 1 : undefined,
  };
  return {
    prompt,
    params: Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined)),
  };
}
