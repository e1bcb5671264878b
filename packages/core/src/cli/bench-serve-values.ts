/** From the words of `tenon bench serve`'s options to their values. */
import { type Goodput, type LatencyMetric, latencyMetrics } from '../benchmark/serve-metrics.js';
import { invalid } from './bench-options.js';

/** `ttft,itl` */
export function parseMetrics(text: string): LatencyMetric[] {
  return text.split(',').map((name) => {
    const metric = latencyMetrics.find((known) => known === name.trim());
    if (metric !== undefined) return metric;
    throw invalid('percentile-metrics', text, `some of ${latencyMetrics.join(',')}`);
  });
}

/** `50,99,99.9` */
export function parsePercentiles(text: string): number[] {
  const percentiles = text.split(',').map((word) => (word.trim() === '' ? NaN : Number(word)));
  if (percentiles.every((percentile) => percentile >= 0 && percentile <= 100)) return percentiles;
  throw invalid('metric-percentiles', text, 'numbers from 0 to 100, such as 50,99');
}

/** `ttft:500 tpot:50` */
export function parseGoodput(words: readonly string[]): Goodput {
  return Object.fromEntries(
    words.map((word) => {
      const [, name, milliseconds] = /^(ttft|tpot|e2el):(\d+(?:\.\d+)?)$/.exec(word) ?? [];
      if (name !== undefined) return [name, Number(milliseconds)];
      throw invalid('goodput', word, 'milliseconds for ttft, tpot or e2el, such as ttft:500');
    }),
  );
}

/** `name=value` */
export function parsePairs(option: string, words: readonly string[] = []): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => {
      const at = word.indexOf('=');
      if (at > 0) return [word.slice(0, at), word.slice(at + 1)];
      throw invalid(option, word, 'name=value');
    }),
  );
}

export function parseJsonObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch {
    // Falls through to the one error for all that is not an object.
  }
  throw invalid('extra-body', text, 'a JSON object');
}
