import { randomBytes } from 'node:crypto';
import { TenonError } from '../errors.js';
import { encodeBadWords } from '../sampling/bad-words.js';
import { buildSamplerRow } from '../sampling/sampler-row.js';
import type { SamplingParams } from '../sampling/sampling-params.js';
import type { EndReason } from '../scheduler/scheduler.js';
import type { Tokenizer } from '../tokenizer/types.js';
import { vocabularyData } from '../tokenizer/vocabulary-data.js';
import { monotonicMs } from './clock.js';
import type { FromCore, ToCore } from './core-messages.js';
import { endsWithin } from './ends-within.js';
import { deafListener, type CoreLink } from './link.js';
import {
  addTotals,
  coreStatsOf,
  idleCoreStats,
  stepFactsOf,
  visitOutputs,
  type CoreStats,
  type OutputVisitor,
} from './output-records.js';
import { PendingRequest } from './pending-request.js';
import { checkPromptTokens } from './prompt-check.js';
import { RequestState } from './request-state.js';
import { RequestStream } from './request-stream.js';
import { StepWatchdog } from './step-watchdog.js';
import type {
  Engine, EngineInfo, EngineStats, FinishedRequest, GenerateRequest, Health, Logprob, StepObservation,
} from './types.js'; // prettier-ignore

export interface EngineClientOptions {
  readonly info: EngineInfo;
  readonly tokenizer: Tokenizer | undefined;
  readonly defaultSamplingParams: Partial<SamplingParams>;
  /** The end-of-sequence token, then further tokens that end an answer. */
  readonly eosTokenIds: readonly number[];
  /** Report logprobs of the processed logits rather than of the raw ones. */
  readonly processedLogprobs: boolean;
  /** Undefined: requests without a seed get random ones. */
  readonly seed: number | undefined;
  /** A core that owes an answer and is silent for so long hangs; Infinity: however long. */
  readonly stepTimeoutMs: number;
  /** Requests that may wait while others run; Infinity: any number. */
  readonly maxNumWaitingRequests: number;
}

/** Milliseconds for the steps in flight to end, and the device to be freed, when the engine closes. */
const closeTimeoutMs = 8000;

/** Well below the number that holds the core (`maxUnreadOutputs`). */
const outputsPerRead = 4;

/** A sequence id's owner. */
interface SequenceRef {
  readonly state: RequestState;
  readonly index: number;
  /** 0 before its first token. */
  lastTokenMs: number;
}

interface Active {
  readonly state: RequestState;
  readonly onNews: () => void;
  readonly release: () => void;
}

/**
 * The front end of the engine: text to tokens and back, stop strings, logprobs, streams. Each request ends exactly once:
 * it leaves `#active` in `#endRequest`, whatever ended it.
 */
export class EngineClient implements Engine {
  readonly info: EngineInfo;
  readonly tokenizer: Tokenizer | undefined;
  readonly defaultSamplingParams: Partial<SamplingParams>;
  readonly #options: EngineClientOptions;
  readonly #link: CoreLink;
  readonly #sequences = new Map<number, SequenceRef>();
  readonly #active = new Map<RequestState, Active>();
  readonly #finishListeners: ((request: FinishedRequest) => void)[] = [];
  readonly #stepListeners: ((step: StepObservation) => void)[] = [];
  readonly #resets = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();
  /** Requests with something new in the message being read. */
  readonly #news = new Set<RequestState>();
  readonly #visitor: OutputVisitor;
  readonly #watchdog: StepWatchdog;
  readonly #deathListeners: ((error: TenonError) => void)[] = [];
  #coreStats: CoreStats;
  /** Of the cores before this one: their counters. */
  #pastStats: CoreStats;
  #numPromptTokens = 0;
  #numGenerationTokens = 0;
  #nextSequenceId = 1;
  /** Messages of outputs that the core does not know to be read. */
  #numRead = 0;
  #numTickets = 0;
  /** Requests whose prompts are being tokenized. */
  #numArriving = 0;
  #numSeeds = 0n;
  #interTokenMs: number[] = [];
  #nowMs = 0;
  /** Why there is no core now, while another is on its way. */
  #outage: TenonError | undefined = undefined;
  #numRestarts = 0;
  #death: TenonError | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  #onIdle: (() => void) | undefined = undefined;

  constructor(options: EngineClientOptions, link: CoreLink) {
    this.info = options.info;
    this.tokenizer = options.tokenizer;
    this.defaultSamplingParams = options.defaultSamplingParams;
    this.#options = options;
    this.#link = link;
    this.#coreStats = idleCoreStats(options.info.numBlocks);
    this.#pastStats = this.#coreStats;
    this.#visitor = {
      started: (id, scheduledMs, numCachedTokens) => this.#started(id, scheduledMs, numCachedTokens),
      token: (id, tokenId, end, logprobs) => this.#token(id, tokenId, end, logprobs),
      score: (id, position, logprobs) => this.#sequences.get(id)?.state.setPromptLogprobs(position, logprobs),
    };
    this.#watchdog = new StepWatchdog(options.stepTimeoutMs, () => this.#giveUp());
    link.listen({
      message: (message) => this.#receive(message),
      died: (error) => this.#die(error),
      lost: (error, isKept) => this.#lose(error, isKept),
      recovered: () => this.#recover(),
    });
    if (options.info.logitsProcessors.length > 0 && options.tokenizer !== undefined)
      link.send({
        type: 'vocabulary',
        vocabulary: vocabularyData(options.tokenizer, options.info.vocabSize),
      });
  }

  generate(request: GenerateRequest): RequestStream {
    this.#refuseIfClosed();
    this.#checkRequest(request);
    return new RequestStream(new PendingRequest(request, this.#start.bind(this), this.#leave.bind(this)));
  }

  stats(): EngineStats {
    const stats = addTotals(this.#coreStats, this.#pastStats);
    return {
      ...stats,
      numWaiting: this.#outage === undefined ? stats.numWaiting : this.#sequences.size,
      numBlocks: this.info.numBlocks,
      kvCacheUsage: this.#coreStats.numUsedBlocks / this.info.numBlocks,
      numPromptTokensTotal: this.#numPromptTokens,
      numGenerationTokensTotal: this.#numGenerationTokens,
      numRestartsTotal: this.#numRestarts,
    };
  }

  onRequestFinished(listener: (request: FinishedRequest) => void): void {
    this.#finishListeners.push(listener);
  }

  onStep(listener: (step: StepObservation) => void): void {
    this.#stepListeners.push(listener);
  }

  onDeath(listener: (error: TenonError) => void): void {
    if (this.#death === undefined) this.#deathListeners.push(listener);
    else listener(this.#death);
  }

  health(): Health {
    if (this.#death !== undefined) return { ok: false, reason: this.#death.message };
    if (this.#outage !== undefined) return { ok: false, reason: this.#outage.message, isRestarting: true };
    return { ok: true };
  }

  async resetPrefixCache(): Promise<void> {
    this.#refuseIfClosed();
    const ticket = ++this.#numTickets;
    await new Promise<void>((resolve, reject) => {
      this.#resets.set(ticket, { resolve, reject });
      this.#link.send({ type: 'reset-prefix-cache', ticket });
    });
  }

  close(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.timeoutMs ?? 0);
    return this.#closing;
  }

  async #close(timeoutMs: number): Promise<void> {
    if (this.#active.size > 0 && timeoutMs > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#onIdle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#failAll(new TenonError('capacity.shutting-down', 'the server is shutting down'));
    await this.#closeLink();
    this.#watchdog.stop();
    await this.tokenizer?.close();
  }

  /** A step that hangs is not waited for until its own time is up. */
  async #closeLink(): Promise<void> {
    const closed = this.#link.close();
    if (!(await endsWithin(closed, closeTimeoutMs))) {
      this.#link.listen(deafListener);
      this.#link.abandon(new TenonError('backend.device-lost', 'the engine does not close'));
    }
    await closed;
  }

  #refuseIfClosed(): void {
    if (this.#death !== undefined) throw this.#death;
    if (this.#closing !== undefined) {
      throw new TenonError(
        'capacity.shutting-down',
        'the server is shutting down and takes no more requests',
      );
    }
  }

  #refuseIfFull(): void {
    const numRequests = this.#active.size + this.#numArriving;
    const { maxNumWaitingRequests } = this.#options;
    const maxNumSeqs = this.#outage === undefined ? this.info.maxNumSeqs : 0;
    if (numRequests < maxNumSeqs + maxNumWaitingRequests) return;
    const message = `${numRequests} requests run or wait, as many as may (maxNumSeqs ${maxNumSeqs} and maxNumWaitingRequests ${maxNumWaitingRequests}); retry later`;
    throw new TenonError('capacity.queue-full', message, { retryAfterSeconds: 1 });
  }

  /** What can be refused before tokenizing. */
  #checkRequest({ prompt, params, priority }: GenerateRequest): void {
    if (priority !== undefined && priority !== 0 && !this.info.priorityScheduling) {
      const message = `priority is ${priority}; expected 0, because the engine runs with the fcfs scheduling policy`;
      throw new TenonError('request.invalid-value', message, { param: 'priority' });
    }
    if ('tokenIds' in prompt) checkPromptTokens(prompt.tokenIds, this.info);
    if (this.tokenizer !== undefined) return;
    const needsTokenizer = 'text' in prompt ? 'a text prompt' : params.stop.length > 0 ? 'stop' : params.badWords.length > 0 ? 'bad_words' : undefined; // prettier-ignore
    if (needsTokenizer !== undefined) {
      throw new TenonError(
        'request.no-tokenizer',
        `${needsTokenizer} needs a tokenizer, and the engine runs without one; send token ids`,
      );
    }
  }

  /** Tokenizes the prompt and hands the request to the core. Returns undefined if it was left meanwhile. */
  async #start(
    request: GenerateRequest,
    isWanted: () => boolean,
    onNews: () => void,
  ): Promise<RequestState | undefined> {
    const arrivalMs = monotonicMs();
    request.signal?.throwIfAborted();
    this.#refuseIfFull();
    const promptTokenIds = await this.#arrive(request);
    checkPromptTokens(promptTokenIds, this.info);
    this.#refuseIfClosed();
    request.signal?.throwIfAborted();
    if (!isWanted()) return undefined;

    const { n } = request.params;
    const firstSequenceId = this.#nextSequenceId;
    this.#nextSequenceId += n;
    const eosTokenId = this.#options.eosTokenIds[0];
    const state = new RequestState(request, {
      firstSequenceId,
      promptTokenIds,
      tokenizer: this.tokenizer,
      eosTokenId,
      arrivalMs,
    });
    this.#register(state, onNews);
    this.#sendToCore(state);
    return state;
  }

  /** A request's prompt; the request counts as active meanwhile. */
  async #arrive(request: GenerateRequest): Promise<readonly number[]> {
    this.#numArriving++;
    try {
      return await this.#tokenize(request);
    } finally {
      this.#numArriving--;
    }
  }

  async #tokenize({ prompt, addSpecialTokens }: GenerateRequest): Promise<readonly number[]> {
    if ('tokenIds' in prompt) return prompt.tokenIds;
    return this.tokenizer!.encodeAsync(prompt.text, { addSpecialTokens: addSpecialTokens ?? true });
  }

  #register(state: RequestState, onNews: () => void): void {
    const { signal } = state.request;
    const abort = () => this.#abort(state);
    signal?.addEventListener('abort', abort, { once: true });
    this.#active.set(state, { state, onNews, release: () => signal?.removeEventListener('abort', abort) });
    state.sequenceIds.forEach((id, index) => this.#sequences.set(id, { state, index, lastTokenMs: 0 }));
  }

  #sendToCore(state: RequestState): void {
    const { params, priority, cacheSalt } = state.request;
    const { eosTokenIds, processedLogprobs } = this.#options;
    const badWords =
      params.badWords.length > 0 ? encodeBadWords(params.badWords, this.tokenizer!) : new Int32Array(0);
    const suppressTokens = [...eosTokenIds, ...params.stopTokenIds];
    this.#ask({
      type: 'add',
      request: {
        firstSequenceId: state.firstSequenceId,
        promptTokenIds: Int32Array.from(state.promptTokenIds),
        seed: params.seed === undefined ? this.#nextSeed() : BigInt(params.seed),
        n: params.n,
        sampler: buildSamplerRow(params, { suppressTokens, badWords, processedLogprobs }),
        maxTokens: params.maxTokens ?? Infinity,
        stopTokenIds: params.ignoreEos ? params.stopTokenIds : suppressTokens,
        priority: priority ?? 0,
        cacheSalt,
        extraArgs: params.extraArgs,
      },
    });
  }

  /** The core answers what starts or ends sequences with outputs, soon or when the step in flight has ended. */
  #ask(message: ToCore & { type: 'add' | 'end' }): void {
    this.#link.send(message);
    if (this.#outage === undefined) this.#watchdog.expect();
  }

  /** With an engine seed, requests without one get a fixed sequence of seeds. */
  #nextSeed(): bigint {
    if (this.#options.seed === undefined) return randomBytes(8).readBigUInt64LE();
    return BigInt.asUintN(64, BigInt(this.#options.seed) + 0xd1b54a32d192ed03n * ++this.#numSeeds);
  }

  #receive(message: FromCore): void {
    if (message.type === 'outputs') {
      this.#readOutputs(message.records);
      this.#noteRead();
    } else if (message.type === 'prefix-cache-reset') {
      this.#resets.get(message.ticket)?.resolve();
      this.#resets.delete(message.ticket);
    } else if (message.type === 'failed') {
      const error = TenonError.fromJSON(message.error);
      if (message.fatal) {
        this.#die(error);
        return;
      }
      const failed = new Set(message.sequenceIds.map((id) => this.#sequences.get(id)?.state));
      for (const state of failed) if (state !== undefined) this.#fail(state, error);
    }
  }

  /** Told now and then: each message costs the core a wake-up. */
  #noteRead(): void {
    if (++this.#numRead < outputsPerRead) return;
    this.#link.send({ type: 'read', count: this.#numRead });
    this.#numRead = 0;
  }

  #readOutputs(records: Float64Array): void {
    this.#coreStats = coreStatsOf(records);
    this.#nowMs = monotonicMs();
    visitOutputs(records, this.#visitor);
    this.#observeStep(records);
    for (const state of this.#news) {
      const active = this.#active.get(state);
      if (state.isFinished) this.#endRequest(state);
      active?.onNews();
    }
    this.#news.clear();
    this.#watchdog.heard(this.#active.size > 0 || this.#coreStats.numStepsInFlight > 0);
  }

  #observeStep(records: Float64Array): void {
    if (this.#stepListeners.length === 0) return;
    const step = { ...stepFactsOf(records), interTokenMs: this.#interTokenMs };
    this.#interTokenMs = [];
    if (step.numTokens > 0) for (const listener of this.#stepListeners) listener(step);
  }

  #started(sequenceId: number, scheduledMs: number, numCachedTokens: number): void {
    const ref = this.#sequences.get(sequenceId);
    if (ref === undefined || ref.index > 0) return;
    ref.state.metrics.scheduledMs = scheduledMs;
    ref.state.numCachedTokens = numCachedTokens;
  }

  /** Tokens of sequences that ended meanwhile find nobody here. */
  #token(
    sequenceId: number,
    tokenId: number,
    end: EndReason | undefined,
    logprobs: Logprob[] | undefined,
  ): void {
    const ref = this.#sequences.get(sequenceId);
    if (ref === undefined) return;
    const { state } = ref;
    this.#count(ref);
    const endedByString = state.sequences[ref.index]!.push(tokenId, end, logprobs);
    state.noteNews();
    this.#news.add(state);
    if (end === undefined && !endedByString) return;
    this.#sequences.delete(sequenceId);
    state.noteSequenceEnd();
    if (endedByString) this.#ask({ type: 'end', sequenceIds: [sequenceId] });
  }

  #count(ref: SequenceRef): void {
    const { metrics, promptTokenIds } = ref.state;
    this.#numGenerationTokens++;
    if (metrics.firstTokenMs === 0) {
      metrics.firstTokenMs = this.#nowMs;
      this.#numPromptTokens += promptTokenIds.length;
    }
    metrics.lastTokenMs = this.#nowMs;
    if (ref.lastTokenMs > 0 && this.#stepListeners.length > 0)
      this.#interTokenMs.push(this.#nowMs - ref.lastTokenMs);
    ref.lastTokenMs = this.#nowMs;
  }

  /** By its signal: the consumer still gets what there is, as a finished output. */
  #abort(state: RequestState): void {
    const active = this.#active.get(state);
    if (active === undefined) return;
    this.#endInCore(state);
    state.abort();
    this.#endRequest(state);
    active.onNews();
  }

  /** The consumer went away; nobody is told. */
  #leave(state: RequestState): void {
    if (!this.#active.has(state)) return;
    this.#endInCore(state);
    state.abort();
    this.#endRequest(state);
  }

  #fail(state: RequestState, error: TenonError): void {
    const active = this.#active.get(state);
    if (active === undefined) return;
    this.#endInCore(state);
    state.error = error;
    this.#endRequest(state);
    active.onNews();
  }

  #failAll(error: TenonError): void {
    for (const state of this.#active.keys()) this.#fail(state, error);
    for (const { reject } of this.#resets.values()) reject(error);
    this.#resets.clear();
  }

  /** Takes no more requests, and fails those there are. */
  #die(cause: TenonError): void {
    if (this.#death !== undefined) return;
    const error = this.#describeEnd(cause, 'the engine has ended: restart it');
    this.#death = error;
    this.#watchdog.stop();
    this.#failAll(error);
    for (const listener of this.#deathListeners) listener(error);
  }

  /** Fails what the core had begun; the next one will have the rest, and an empty prefix cache. */
  #lose(cause: TenonError, isKept: (firstSequenceId: number) => boolean): void {
    const error = this.#describeEnd(cause, 'the engine restarts: send the request again');
    this.#outage = error;
    this.#watchdog.stop();
    this.#numRead = 0;
    this.#pastStats = addTotals(this.#coreStats, this.#pastStats);
    this.#coreStats = idleCoreStats(this.info.numBlocks);
    for (const state of this.#active.keys()) if (!isKept(state.firstSequenceId)) this.#fail(state, error);
    for (const { resolve } of this.#resets.values()) resolve();
    this.#resets.clear();
  }

  #recover(): void {
    this.#outage = undefined;
    this.#numRestarts++;
    if (this.#active.size > 0) this.#watchdog.expect();
  }

  #describeEnd(cause: TenonError, remedy: string): TenonError {
    const device = cause.code === 'backend.device-lost' ? `device ${this.info.device} is lost: ` : '';
    return new TenonError(cause.code, `${device}${cause.message}; ${remedy}`);
  }

  #giveUp(): void {
    const seconds = this.#options.stepTimeoutMs / 1000;
    const message = `a step has not ended within ${seconds} s (raise step-timeout where steps are just slow)`;
    this.#link.abandon(new TenonError('backend.device-lost', message));
  }

  #endInCore(state: RequestState): void {
    const sequenceIds = state.sequenceIds.filter((id) => this.#sequences.delete(id));
    if (sequenceIds.length > 0 && this.#death === undefined) this.#ask({ type: 'end', sequenceIds });
  }

  /** The one place where requests end. */
  #endRequest(state: RequestState): void {
    this.#active.get(state)?.release();
    this.#active.delete(state);
    if (this.#active.size === 0) this.#onIdle?.();
    if (this.#finishListeners.length === 0) return;
    const finished: FinishedRequest = {
      requestId: state.request.requestId,
      numPromptTokens: state.promptTokenIds.length,
      numCachedTokens: state.numCachedTokens,
      numGenerationTokens: state.numGenerationTokens,
      finishReason: state.error === undefined ? (state.sequences[0]!.finishReason ?? 'abort') : 'error',
      params: state.request.params,
      metrics: { ...state.metrics },
      finishedMs: monotonicMs(),
    };
    for (const listener of this.#finishListeners) listener(finished);
  }
}
