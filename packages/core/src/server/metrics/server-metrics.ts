/** /metrics: vLLM's metrics by its names, with prefix `tenon:` or the one asked for. */
import { Counter, Gauge, Registry } from 'prom-client';

import type { Engine, EngineStats, FinishedRequest } from '../../engine/types.js';
import {
  firstTokenBuckets,
  oneTwoFive,
  requestBuckets,
  sequenceCountBuckets,
  stepTokenBuckets,
  tokenBuckets,
} from './buckets.js';
import { FastHistogram } from './fast-histogram.js';

const engineIndex = '0';

export interface ServerMetricsOptions {
  readonly modelName: string;
  readonly prefix: string;
}

export class ServerMetrics {
  readonly #registry = new Registry();
  readonly #engine: Engine;
  readonly #prefix: string;
  readonly #labels: { readonly model_name: string; readonly engine: string };

  constructor(engine: Engine, options: ServerMetricsOptions) {
    this.#engine = engine;
    this.#prefix = options.prefix;
    this.#labels = { model_name: options.modelName, engine: engineIndex };
    this.#registerBackend();
    this.#registerState();
    this.#registerTotals();
    this.#registerCacheConfig();
    this.#registerFinished();
    this.#registerSteps();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** What computes, so that nobody has to guess it from the speed. */
  #registerBackend(): void {
    const { backend, device } = this.#engine.info;
    const labels = { ...this.#labels, backend: backend.id, version: backend.version, device };
    new Gauge({
      name: this.#name('backend_info'),
      help: 'The backend and the device that serve are the labels',
      labelNames: Object.keys(labels),
      registers: [this.#registry],
    }).set(labels, 1);
  }

  /** What is so now, read when asked for. */
  #registerState(): void {
    this.#gauge('num_requests_running', 'Requests in the running batch', (stats) => stats.numRunning);
    this.#gauge('num_requests_waiting', 'Requests waiting to run', (stats) => stats.numWaiting);
    this.#gauge('kv_cache_usage_perc', 'Share of KV-cache blocks in use, 0…1', (stats) => stats.kvCacheUsage);
    const blocks: Gauge = new Gauge({
      name: this.#name('kv_cache_blocks'),
      help: 'KV-cache blocks by state; together they are num_gpu_blocks of cache_config_info',
      labelNames: ['model_name', 'engine', 'state'],
      registers: [this.#registry],
      collect: () => {
        const { numFreeBlocks, numUsedBlocks } = this.#engine.stats();
        blocks.set({ ...this.#labels, state: 'free' }, numFreeBlocks);
        blocks.set({ ...this.#labels, state: 'used' }, numUsedBlocks);
      },
    });
    const byReason: Gauge = new Gauge({
      name: this.#name('num_requests_waiting_by_reason'),
      help: 'Requests waiting to run, by why they wait',
      labelNames: ['model_name', 'engine', 'reason'],
      registers: [this.#registry],
      collect: () => {
        byReason.set({ ...this.#labels, reason: 'capacity' }, this.#engine.stats().numWaiting);
        byReason.set({ ...this.#labels, reason: 'deferred' }, 0);
      },
    });
    const sleep = new Gauge({
      name: this.#name('engine_sleep_state'),
      help: 'Which sleep state the engine is in',
      labelNames: ['model_name', 'engine', 'sleep_state'],
      registers: [this.#registry],
    });
    for (const state of ['awake', 'weights_offloaded', 'discard_all']) {
      sleep.set({ ...this.#labels, sleep_state: state }, state === 'awake' ? 1 : 0);
    }
  }

  #registerTotals(): void {
    this.#total('prompt_tokens', 'Prompt tokens processed', (stats) => stats.numPromptTokensTotal);
    this.#total('generation_tokens', 'Tokens generated', (stats) => stats.numGenerationTokensTotal);
    this.#total('num_preemptions', 'Requests preempted', (stats) => stats.numPreemptionsTotal);
    this.#total(
      'num_preempted_ends',
      'Sequences that their clients ended while they were preempted',
      (stats) => stats.numPreemptedEndsTotal,
    );
    this.#total(
      'prefix_cache_queries',
      'Prompt tokens looked up in the prefix cache',
      (stats) => stats.prefixCacheQueriesTotal,
    );
    this.#total(
      'prefix_cache_hits',
      'Prompt tokens found in the prefix cache',
      (stats) => stats.prefixCacheHitsTotal,
    );
    this.#total(
      'engine_restarts',
      'Times that the engine came back after it had lost its device',
      (stats) => stats.numRestartsTotal,
    );
  }

  #registerCacheConfig(): void {
    const { info } = this.#engine;
    const numTokens = info.numBlocks * info.blockSize;
    const labels = {
      engine: engineIndex,
      block_size: String(info.blockSize),
      num_gpu_blocks: String(info.numBlocks),
      enable_prefix_caching: String(info.enablePrefixCaching),
      cache_dtype: info.dtype,
      gpu_memory_utilization: String(info.gpuMemoryUtilization),
      kv_cache_memory_bytes: orNone(info.kvCacheMemoryBytes),
      num_gpu_blocks_override: orNone(info.numGpuBlocksOverride),
      kv_cache_size_tokens: String(numTokens),
      kv_cache_max_concurrency: String(numTokens / info.maxModelLen),
    };
    new Gauge({
      name: this.#name('cache_config_info'),
      help: 'The KV cache: its size and settings are the labels',
      labelNames: Object.keys(labels),
      registers: [this.#registry],
    }).set(labels, 1);
  }

  #registerFinished(): void {
    const cached = this.#counter('prompt_tokens_cached', 'Prompt tokens taken from the prefix cache');
    const bySource = this.#counter('prompt_tokens_by_source', 'Prompt tokens by where they came from', [
      'source',
    ]);
    const success = this.#counter('request_success', 'Requests ended', ['finished_reason']);
    for (const source of ['local_compute', 'local_cache_hit', 'external_kv_transfer']) {
      bySource.inc({ ...this.#labels, source }, 0);
    }
    for (const reason of ['stop', 'length', 'abort', 'error', 'repetition']) {
      success.inc({ ...this.#labels, finished_reason: reason }, 0);
    }
    cached.inc(this.#labels, 0);
    const observe = this.#requestHistograms();
    this.#engine.onRequestFinished((request) => {
      success.inc({ ...this.#labels, finished_reason: request.finishReason });
      cached.inc(this.#labels, request.numCachedTokens);
      const numComputed = Math.max(0, request.numPromptTokens - request.numCachedTokens);
      bySource.inc({ ...this.#labels, source: 'local_compute' }, numComputed);
      bySource.inc({ ...this.#labels, source: 'local_cache_hit' }, request.numCachedTokens);
      observe(request);
    });
  }

  #requestHistograms(): (request: FinishedRequest) => void {
    const lengths = oneTwoFive(this.#engine.info.maxModelLen);
    const promptTokens = this.#histogram('request_prompt_tokens', 'Prompt tokens per request', lengths);
    const generationTokens = this.#histogram(
      'request_generation_tokens',
      'Tokens generated per request',
      lengths,
    );
    const maxGeneration = this.#histogram(
      'request_max_num_generation_tokens',
      'Most tokens of a sequence',
      lengths,
    );
    const computed = this.#histogram(
      'request_prefill_kv_computed_tokens',
      'Prompt tokens not from the cache',
      lengths,
    );
    const maxTokens = this.#histogram('request_params_max_tokens', 'max_tokens asked for', lengths);
    const n = this.#histogram('request_params_n', 'n asked for', sequenceCountBuckets);
    const seconds = (name: string, help: string): FastHistogram =>
      this.#histogram(`${name}_seconds`, help, requestBuckets);
    const e2e = seconds('e2e_request_latency', 'From arrival to the end');
    const queue = seconds('request_queue_time', 'From arrival to the first step');
    const inference = seconds('request_inference_time', 'From the first step to the last token');
    const prefill = seconds('request_prefill_time', 'From the first step to the first token');
    const decode = seconds('request_decode_time', 'From the first to the last token');
    const firstToken = this.#histogram(
      'time_to_first_token_seconds',
      'From arrival to the first token',
      firstTokenBuckets,
    );
    const perToken = this.#histogram(
      'request_time_per_output_token_seconds',
      'Mean time between a request’s tokens',
      tokenBuckets,
    );
    return ({ numPromptTokens, numCachedTokens, numGenerationTokens, params, metrics, finishedMs }) => {
      promptTokens.observe(numPromptTokens);
      generationTokens.observe(numGenerationTokens);
      maxGeneration.observe(Math.ceil(numGenerationTokens / params.n));
      computed.observe(Math.max(0, numPromptTokens - numCachedTokens));
      if (params.maxTokens !== undefined) maxTokens.observe(params.maxTokens);
      n.observe(params.n);
      e2e.observe((finishedMs - metrics.arrivalMs) / 1000);
      if (metrics.scheduledMs > 0) queue.observe((metrics.scheduledMs - metrics.arrivalMs) / 1000);
      if (metrics.firstTokenMs === 0) return;
      const decodeSeconds = (metrics.lastTokenMs - metrics.firstTokenMs) / 1000;
      firstToken.observe((metrics.firstTokenMs - metrics.arrivalMs) / 1000);
      inference.observe((metrics.lastTokenMs - metrics.scheduledMs) / 1000);
      prefill.observe((metrics.firstTokenMs - metrics.scheduledMs) / 1000);
      decode.observe(decodeSeconds);
      const numPerSequence = numGenerationTokens / params.n;
      if (numPerSequence > 1) perToken.observe(decodeSeconds / (numPerSequence - 1));
    };
  }

  #registerSteps(): void {
    const stepTokens = this.#histogram('iteration_tokens_total', 'Tokens per step', stepTokenBuckets);
    const interToken = this.#histogram(
      'inter_token_latency_seconds',
      'Time between two tokens of a sequence',
      tokenBuckets,
    );
    this.#engine.onStep(({ numTokens, interTokenMs }) => {
      stepTokens.observe(numTokens);
      for (let i = 0; i < interTokenMs.length; i++) interToken.observe((interTokenMs[i] ?? 0) / 1000);
    });
  }

  #name(name: string): string {
    return `${this.#prefix}:${name}`;
  }

  #gauge(name: string, help: string, read: (stats: EngineStats) => number): void {
    const gauge: Gauge = new Gauge({
      name: this.#name(name),
      help,
      labelNames: ['model_name', 'engine'],
      registers: [this.#registry],
      collect: () => {
        gauge.set(this.#labels, read(this.#engine.stats()));
      },
    });
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({
      name: this.#name(`${name}_total`),
      help,
      labelNames: ['model_name', 'engine', ...labelNames],
      registers: [this.#registry],
    });
  }

  /** A counter that the engine keeps. */
  #total(name: string, help: string, read: (stats: EngineStats) => number): void {
    const counter: Counter = new Counter({
      name: this.#name(`${name}_total`),
      help,
      labelNames: ['model_name', 'engine'],
      registers: [this.#registry],
      collect: () => {
        counter.reset();
        counter.inc(this.#labels, read(this.#engine.stats()));
      },
    });
  }

  #histogram(name: string, help: string, bounds: readonly number[]): FastHistogram {
    const histogram = new FastHistogram({ name: this.#name(name), help, labels: this.#labels, bounds });
    this.#registry.registerMetric(histogram.asMetric());
    return histogram;
  }
}

/** As vLLM's labels have it. */
const orNone = (value: number | undefined): string => String(value ?? 'None');
