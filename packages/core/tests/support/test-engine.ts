import { EngineClient, type CoreLink, type EngineClientOptions } from '../../src/engine/engine-client.js';
import { EngineCore } from '../../src/engine/engine-core.js';
import { LogitsProcessors, type NamedProcessor } from '../../src/engine/logits-processors.js';
import type { BackendFailure } from '../../src/backend/index.js';
import type { FromCore } from '../../src/engine/core-messages.js';
import type { EngineInfo, FinishedRequest, GenerateRequest, RequestOutput } from '../../src/engine/types.js';
import type { TenonError } from '../../src/errors.js';
import { resolveSamplingParams } from '../../src/sampling/resolve-sampling-params.js';
import type { SamplingParams } from '../../src/sampling/sampling-params.js';
import type { Tokenizer } from '../../src/tokenizer/types.js';
import { HistoryModel } from './history-model.js';

export interface TestEngineOptions {
  readonly vocabSize?: number;
  readonly tokenizer?: Tokenizer;
  readonly numBlocks?: number;
  readonly maxNumSeqs?: number;
  readonly maxNumBatchedTokens?: number;
  readonly maxModelLen?: number;
  readonly maxNumWaitingRequests?: number;
  readonly eosTokenIds?: readonly number[];
  readonly logitsProcessors?: readonly NamedProcessor[];
  readonly stepsInFlight?: number;
  /** A step's failure, by its id. */
  readonly failureOf?: (stepId: number) => BackendFailure | undefined;
}

/** A whole engine in this thread, on a history model. */
export class TestEngine {
  readonly client: EngineClient;
  readonly model: HistoryModel;
  readonly finished: FinishedRequest[] = [];
  /** Ends the core as a crashed thread would. */
  die: (error: TenonError) => void = () => {};
  #numRequests = 0;

  constructor(options: TestEngineOptions = {}) {
    const {
      vocabSize = 1000,
      numBlocks = 64,
      maxNumSeqs = 8,
      maxNumBatchedTokens = 64,
      maxModelLen = 128,
    } = options;
    const blockSize = 4;
    this.model = new HistoryModel({
      vocabSize,
      blockSize,
      numBlocks,
      maxNumSeqs,
      onStepDone: (stepId) => core.stepDone(stepId, options.failureOf?.(stepId)),
    });
    let onMessage: (message: FromCore) => void = () => {};
    const core = new EngineCore(
      {
        scheduler: {
          maxNumSeqs,
          maxNumBatchedTokens,
          maxPromptTokensBesideDecodes: Infinity,
          enableChunkedPrefill: true,
          longPrefillTokenThreshold: 0,
          mixedPrefillDecode: true,
          maxResultWords: 1e6,
        },
        numBlocks,
        blockSize,
        watermarkBlocks: 0,
        maxModelLen,
        enablePrefixCaching: true,
        sharedPromptLength: Infinity,
        stepsInFlight: options.stepsInFlight ?? 2,
        maxUnreadOutputs: 8,
        tokenBuckets: [],
        logitsProcessors:
          options.logitsProcessors && new LogitsProcessors(options.logitsProcessors, vocabSize, maxModelLen),
      },
      this.model,
      (message) => onMessage(message),
    );
    const link: CoreLink = {
      send: (message) => core.receive(message),
      listen: (listener, onDeath) => {
        onMessage = listener;
        this.die = onDeath;
      },
      close: () => core.close(),
      abandon: () => core.abandon(),
    };
    const info = {
      vocabSize,
      maxModelLen,
      numBlocks,
      maxNumSeqs,
      maxLogprobs: 20,
      priorityScheduling: false,
      logitsProcessors: (options.logitsProcessors ?? []).map(({ name, extension }) => ({
        name,
        args: extension.args,
      })),
    } as Partial<EngineInfo> as EngineInfo;
    const clientOptions: EngineClientOptions = {
      info,
      tokenizer: options.tokenizer,
      defaultSamplingParams: {},
      eosTokenIds: options.eosTokenIds ?? [],
      processedLogprobs: false,
      seed: 0,
      stepTimeoutMs: 60_000,
      maxNumWaitingRequests: options.maxNumWaitingRequests ?? Infinity,
    };
    this.client = new EngineClient(clientOptions, link);
    this.client.onRequestFinished((request) => this.finished.push(request));
  }

  request(
    prompt: readonly number[] | string,
    params: Partial<SamplingParams> = {},
    more: Partial<GenerateRequest> = {},
  ): GenerateRequest {
    return {
      requestId: `r${this.#numRequests++}`,
      prompt: typeof prompt === 'string' ? { text: prompt } : { tokenIds: prompt },
      params: resolveSamplingParams(params, {}, this.client.info),
      ...more,
    };
  }

  stream(...args: Parameters<TestEngine['request']>): AsyncIterable<RequestOutput> {
    return this.client.generate(this.request(...args));
  }

  /** The last output. */
  async run(...args: Parameters<TestEngine['request']>): Promise<RequestOutput> {
    let last: RequestOutput | undefined;
    for await (const output of this.stream(...args)) last = output;
    return last!;
  }

  /** Until the core has nothing more to do. */
  async idle(): Promise<void> {
    do await new Promise((resolve) => setTimeout(resolve, 2));
    while (this.model.numQueued > 0);
  }
}
