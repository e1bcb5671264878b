/** How the engine fares, every few seconds while it works. When it is idle there is no timer, and nothing is said. */
import type { Engine, EngineStats } from '../engine/types.js';
import type { StatRates } from '../extensions/index.js';

/** What a report is about. */
export interface StatsInterval {
  readonly intervalSeconds: number;
  /** Counters since the start, and gauges now. */
  readonly totals: EngineStats;
}

export function watchStats(
  engine: Pick<Engine, 'stats' | 'onStep'>,
  write: (line: string, rates: StatRates, interval: StatsInterval) => void,
  intervalMs: number,
): void {
  let timer: NodeJS.Timeout | undefined;
  let before = engine.stats();
  let sinceMs = 0;
  const tick = (): void => {
    const stats = engine.stats();
    const nowMs = performance.now();
    const intervalSeconds = (nowMs - sinceMs) / 1000;
    const rates = compare(before, stats, intervalSeconds);
    [before, sinceMs] = [stats, nowMs];
    write(describe(rates), rates, { intervalSeconds, totals: stats });
    if (stats.numRunning + stats.numWaiting > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
  engine.onStep(() => {
    if (timer !== undefined) return;
    sinceMs = performance.now();
    timer = setInterval(tick, intervalMs).unref();
  });
}

function compare(before: EngineStats, now: EngineStats, seconds: number): StatRates {
  const numLookups = now.prefixCacheQueriesTotal - before.prefixCacheQueriesTotal;
  const numHits = now.prefixCacheHitsTotal - before.prefixCacheHitsTotal;
  return {
    numRunning: now.numRunning,
    numWaiting: now.numWaiting,
    promptTokensPerSecond: (now.numPromptTokensTotal - before.numPromptTokensTotal) / seconds,
    generationTokensPerSecond: (now.numGenerationTokensTotal - before.numGenerationTokensTotal) / seconds,
    kvCacheUsage: now.kvCacheUsage,
    prefixHitRate: numLookups === 0 ? undefined : numHits / numLookups,
  };
}

function describe(report: StatRates): string {
  const hits = report.prefixHitRate === undefined ? '' : `, prefix hits ${percent(report.prefixHitRate)}`;
  return (
    `running ${report.numRunning}, waiting ${report.numWaiting}; ` +
    `prompt ${rate(report.promptTokensPerSecond)}, generation ${rate(report.generationTokensPerSecond)} tokens/s; ` +
    `KV cache ${percent(report.kvCacheUsage)}${hits}`
  );
}

const rate = (perSecond: number): string => perSecond.toFixed(perSecond < 10 ? 1 : 0);
const percent = (share: number): string => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
