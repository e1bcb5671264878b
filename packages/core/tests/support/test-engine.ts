import { LogitsProcessors, type NamedProcessor } from '../../src/engine/logits-processors.js';
import type { BackendFailure } from '../../src/backend/index.js';
import type { CoreRequest, FromCore } from '../../src/engine/core-messages.js';
import { EngineClient } from '../../src/engine/engine-client.js';
import { EngineCore } from '../../src/engine/engine-core.js';
import { deafListener, type CoreLink } from '../../src/engine/link.js';
import { RestartingLink, type RestartOptions } from '../../src/engine/restarting-link.js';
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
  readonly stepTimeoutMs?: number;
  readonly priorityScheduling?: boolean;
  /** A step's failure, by its id and how many cores there were before; `hang`: it never ends. */
  readonly failureOf?: (stepId: number, numCoresBefore: number) => BackendFailure | 'hang' | undefined;
  /** Restart on loss; `beforeStart` may wait or throw. */
  readonly restart?: Pick<RestartOptions, 'delaysMs'> & { readonly beforeStart?: () => Promise<void> | void };
}

/** A whole engine in this thread, on a history model. */
export class TestEngine {
  readonly client: EngineClient;
  readonly finished: FinishedRequest[] = [];
  readonly log: string[] = [];
  /** Sequence ids in the order in which each core began them. */
  readonly begun: number[][] = [];
  /** Requests that cores were given, by the first of their sequence ids. */
  readonly given = new Map<number, CoreRequest>();
  model!: HistoryModel;
  /** Ends the core as a crashed thread would. */
  die: (error: TenonError) => void = () => {};
  readonly #options: TestEngineOptions;
  #numCores = 0;
  #numRequests = 0;

  constructor(options: TestEngineOptions = {}) {
    this.#options = options;
    const { vocabSize = 1000, numBlocks = 64, maxNumSeqs = 8, maxModelLen = 128 } = options;
    const info = {
      device: 'test:0',
      vocabSize,
      maxModelLen,
      numBlocks,
      maxNumSeqs,
      maxLogprobs: 20,
      priorityScheduling: options.priorityScheduling ?? false,
      logitsProcessors: (options.logitsProcessors ?? []).map(({ name, extension }) => ({
        name,
        args: extension.args,
      })),
    } as Partial<EngineInfo> as EngineInfo;
    const clientOptions = {
      info,
      tokenizer: options.tokenizer,
      defaultSamplingParams: {},
      eosTokenIds: options.eosTokenIds ?? [],
      processedLogprobs: false,
      seed: 0,
      stepTimeoutMs: options.stepTimeoutMs ?? 60_000,
      maxNumWaitingRequests: options.maxNumWaitingRequests ?? Infinity,
    };
    this.client = new EngineClient(clientOptions, this.#makeLink());
    this.client.onRequestFinished((request) => this.finished.push(request));
  }

  #makeLink(): CoreLink {
    const { restart } = this.#options;
    const core = this.#startCore();
    if (restart === undefined) return core;
    return new RestartingLink(core, {
      device: 'test:0',
      start: async (signal) => {
        await restart.beforeStart?.();
        signal.throwIfAborted();
        return this.#startCore();
      },
      log: (level, message) => this.log.push(`${level}: ${message}`),
      delaysMs: restart.delaysMs ?? [0, 1, 1, 1, 1],
      releaseTimeoutMs: 50,
    });
  }

  #startCore(): CoreLink {
    const {
      vocabSize = 1000,
      numBlocks = 64,
      maxNumSeqs = 8,
      maxNumBatchedTokens = 64,
      maxModelLen = 128,
      logitsProcessors,
    } = this.#options;
    const numCoresBefore = this.#numCores++;
    const blockSize = 4;
    let isHung = false;
    this.model = new HistoryModel({
      vocabSize,
      blockSize,
      numBlocks,
      maxNumSeqs,
      onStepDone: (stepId) => {
        const failure = this.#options.failureOf?.(stepId, numCoresBefore);
        isHung ||= failure === 'hang';
        if (!isHung && failure !== 'hang') core.stepDone(stepId, failure);
      },
    });
    const begun: number[] = [];
    this.begun.push(begun);
    let listener = deafListener;
    const hear = (message: FromCore): void => {
      if (message.type === 'begun') begun.push(...message.sequenceIds);
      listener.message(message);
    };
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
        stepsInFlight: this.#options.stepsInFlight ?? 2,
        maxUnreadOutputs: 8,
        reportsBegun: this.#options.restart !== undefined,
        tokenBuckets: [],
        logitsProcessors: logitsProcessors && new LogitsProcessors(logitsProcessors, vocabSize, maxModelLen),
      },
      this.model,
      hear,
    );
    this.die = (error) => listener.died(error);
    return {
      send: (message) => {
        if (message.type === 'add') this.given.set(message.request.firstSequenceId, message.request);
        core.receive(message);
      },
      listen: (next) => {
        listener = next;
      },
      close: () => core.close(),
      abandon: (error) => {
        core.abandon();
        listener.died(error);
      },
    };
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
