/** Where the engine's statistics go, besides the log and /metrics: `tenon.statLoggers: [{ "name", "entry" }]`. */
import type { EngineInfo, EngineStats } from '../engine/types.js';

/**
 * The default export of a stat logger's module. It runs in a thread of its own, so that nothing it does can slow down
 * serving: what it throws is said once, and while it is busy with one report, those that come are left out.
 */
export interface StatLoggerExtension {
  readonly create: (options: StatLoggerOptions) => StatLogger | Promise<StatLogger>;
}

export interface StatLoggerOptions {
  /** What the user wrote after the name: `stats.csv` in `--stat-logger csv=stats.csv`. */
  readonly argument: string | undefined;
}

export interface StatLogger {
  /** Called at the interval of the statistics line, while the engine works and once when it has become idle. */
  log(report: StatReport): void | Promise<void>;
  /** Called when the server ends, which waits for it up to a second. */
  close?(): void | Promise<void>;
}

/** Rates are per second, over `intervalSeconds`. */
export interface StatReport extends StatRates {
  /** Milliseconds since 1970. */
  readonly timeMs: number;
  readonly intervalSeconds: number;
  readonly engine: Pick<EngineInfo, 'modelName' | 'device' | 'dtype'>;
  /** Counters since the start, and gauges now. */
  readonly totals: EngineStats;
}

export interface StatRates {
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly promptTokensPerSecond: number;
  readonly generationTokensPerSecond: number;
  /** 0…1. */
  readonly kvCacheUsage: number;
  /** 0…1; undefined where nothing was looked up. */
  readonly prefixHitRate: number | undefined;
}
