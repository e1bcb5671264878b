/** How the engine fares, every few seconds while it works. When it is idle there is no timer, and nothing is said. */
import type { Engine, EngineStats } from '../engine/types.js';

/** Rates are per second, over the time since the last line. */
export interface StatsReport {
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly promptTokensPerSecond: number;
  readonly generationTokensPerSecond: number;
  /** 0…1. */
  readonly kvCacheUsage: number;
  /** 0…1; undefined where nothing was looked up. */
  readonly prefixHitRate: number | undefined;
}

export function watchStats(
  engine: Pick<Engine, 'stats' | 'onStep'>,
  write: (line: string, report: StatsReport) => void,
  intervalMs: number,
): void {
  let timer: NodeJS.Timeout | undefined;
  let before = engine.stats();
  let sinceMs = 0;
  const tick = (): void => {
    const stats = engine.stats();
    const nowMs = performance.now();
    const report = compare(before, stats, (nowMs - sinceMs) / 1000);
    [before, sinceMs] = [stats, nowMs];
    write(describe(report), report);
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

function compare(before: EngineStats, now: EngineStats, seconds: number): StatsReport {
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

function describe(report: StatsReport): string {
  const hits = report.prefixHitRate === undefined ? '' : `, prefix hits ${percent(report.prefixHitRate)}`;
  return (
    `running ${report.numRunning}, waiting ${report.numWaiting}; ` +
    `prompt ${rate(report.promptTokensPerSecond)}, generation ${rate(report.generationTokensPerSecond)} tokens/s; ` +
    `KV cache ${percent(report.kvCacheUsage)}${hits}`
  );
}

const rate = (perSecond: number): string => perSecond.toFixed(perSecond < 10 ? 1 : 0);
const percent = (share: number): string => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
