/** From what requests were seen to do to the figures of a run, under the names that vLLM's `bench serve` gives them. */
import {
  endToEndMs,
  interTokenMs,
  type RequestTrace,
  timePerOutputTokenMs,
  timeToFirstTokenMs,
} from './request-trace.js';
import { sum, type Summary, summarize } from './statistics.js';

/** ttft: time to first token; tpot: time per output token after it; itl: inter-token latency; e2el: end-to-end latency. */
export const latencyMetrics = ['ttft', 'tpot', 'itl', 'e2el'] as const;
export type LatencyMetric = (typeof latencyMetrics)[number];

/** Milliseconds that a request may take to count as good. */
export type Goodput = Readonly<Partial<Record<Exclude<LatencyMetric, 'itl'>, number>>>;

export interface MetricsOptions {
  readonly durationMs: number;
  readonly percentiles: readonly number[];
  readonly metrics: readonly LatencyMetric[];
  readonly goodput: Goodput | undefined;
}

/** Times are in seconds, throughputs per second, latencies in milliseconds. */
export interface ServeResult {
  readonly duration: number;
  readonly completed: number;
  readonly failed: number;
  readonly total_input_tokens: number;
  readonly total_output_tokens: number;
  readonly request_throughput: number;
  /** Null where no goodput was asked for. */
  readonly request_goodput: number | null;
  readonly output_throughput: number;
  readonly total_token_throughput: number;
  readonly max_output_tokens_per_s: number;
  readonly max_concurrent_requests: number;
  /** `{mean,median,std,p99…}_{ttft,tpot,itl,e2el}_ms`. */
  readonly [latency: string]: number | null;
}

export function serveResult(traces: readonly RequestTrace[], options: MetricsOptions): ServeResult {
  const completed = traces.filter(({ error }) => error === undefined);
  const seconds = options.durationMs / 1000;
  const numInputTokens = sum(completed.map((trace) => trace.numPromptTokens));
  const numOutputTokens = sum(completed.map((trace) => trace.numOutputTokens));
  const { goodput } = options;
  return {
    duration: seconds,
    completed: completed.length,
    failed: traces.length - completed.length,
    total_input_tokens: numInputTokens,
    total_output_tokens: numOutputTokens,
    request_throughput: completed.length / seconds,
    request_goodput: goodput ? completed.filter((trace) => isGood(trace, goodput)).length / seconds : null,
    output_throughput: numOutputTokens / seconds,
    total_token_throughput: (numInputTokens + numOutputTokens) / seconds,
    ...latencyFields(completed, options),
    max_output_tokens_per_s: mostTokensInASecond(completed),
    max_concurrent_requests: mostAtOnce(completed),
  };
}

export function latencySamples(traces: readonly RequestTrace[], metric: LatencyMetric): number[] {
  switch (metric) {
    case 'ttft':
      return traces.map(timeToFirstTokenMs);
    case 'tpot':
      return traces.map(timePerOutputTokenMs).filter((time) => time !== undefined);
    case 'itl':
      return traces.flatMap(interTokenMs);
    case 'e2el':
      return traces.map(endToEndMs);
  }
}

function latencyFields(
  traces: readonly RequestTrace[],
  { metrics, percentiles }: MetricsOptions,
): Record<string, number> {
  return Object.assign(
    {},
    ...metrics.map((metric) => summaryFields(summarize(latencySamples(traces, metric), percentiles), metric)),
  ) as Record<string, number>;
}

function summaryFields(summary: Summary, metric: LatencyMetric): Record<string, number> {
  const fields = [
    [`mean_${metric}_ms`, summary.mean],
    [`median_${metric}_ms`, summary.median],
    [`std_${metric}_ms`, summary.std],
    ...[...summary.percentiles].map(([percentile, value]) => [`p${percentile}_${metric}_ms`, value]),
  ];
  return Object.fromEntries(fields) as Record<string, number>;
}

function isGood(trace: RequestTrace, { ttft, tpot, e2el }: Goodput): boolean {
  return (
    timeToFirstTokenMs(trace) <= (ttft ?? Infinity) &&
    (timePerOutputTokenMs(trace) ?? 0) <= (tpot ?? Infinity) &&
    endToEndMs(trace) <= (e2el ?? Infinity)
  );
}

/** Over the seconds of the run, counted from its first request. A piece of several tokens counts as their mean. */
function mostTokensInASecond(traces: readonly RequestTrace[]): number {
  const start = Math.min(...traces.map(({ startMs }) => startMs));
  const perSecond: number[] = [];
  for (const { pieceMs, numOutputTokens } of traces) {
    for (const time of pieceMs) {
      const second = Math.floor((time - start) / 1000);
      perSecond[second] = (perSecond[second] ?? 0) + numOutputTokens / pieceMs.length;
    }
  }
  return Object.values(perSecond).reduce((most, tokens) => Math.max(most, tokens), 0);
}

function mostAtOnce(traces: readonly RequestTrace[]): number {
  const changes = traces.flatMap(({ startMs, endMs }) => [
    { time: startMs, change: 1 },
    { time: endMs, change: -1 },
  ]);
  changes.sort((a, b) => a.time - b.time || a.change - b.change);
  let running = 0;
  let most = 0;
  for (const { change } of changes) most = Math.max(most, (running += change));
  return most;
}

/** What `--save-detailed` adds, one entry per request; times are in seconds, `start_times` since the first. */
export function detailedResult(traces: readonly RequestTrace[]): Record<string, unknown> {
  const startMs = Math.min(...traces.map((trace) => trace.startMs));
  const seconds = (ms: number): number => ms / 1000;
  return {
    input_lens: traces.map((trace) => trace.numPromptTokens),
    output_lens: traces.map((trace) => trace.numOutputTokens),
    ttfts: traces.map((trace) => (trace.pieceMs.length === 0 ? 0 : seconds(timeToFirstTokenMs(trace)))),
    itls: traces.map((trace) => interTokenMs(trace).map(seconds)),
    start_times: traces.map((trace) => seconds(trace.startMs - startMs)),
    generated_texts: traces.map((trace) => trace.text),
    errors: traces.map((trace) => trace.error ?? ''),
  };
}
