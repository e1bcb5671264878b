/**
 * A histogram of prom-client's registry with fixed labels: observing is an array increment, since latencies are
 * observed per token. (prom-client's own hashes its labels at each observation.)
 */
import type { LabelValues, Metric } from 'prom-client';

export class FastHistogram {
  readonly #name: string;
  readonly #help: string;
  readonly #labels: LabelValues<string>;
  /** Upper bounds, ascending. */
  readonly #bounds: readonly number[];
  /** Per bound, and one beyond all: [bounds.length + 1]. */
  readonly #counts: Float64Array;
  #sum = 0;

  constructor(options: {
    name: string;
    help: string;
    labels: LabelValues<string>;
    bounds: readonly number[];
  }) {
    this.#name = options.name;
    this.#help = options.help;
    this.#labels = options.labels;
    this.#bounds = options.bounds;
    this.#counts = new Float64Array(options.bounds.length + 1);
  }

  observe(value: number): void {
    let bucket = 0;
    while (bucket < this.#bounds.length && value > (this.#bounds[bucket] ?? 0)) bucket++;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sum += value;
  }

  /** For `Registry.registerMetric`, which reads `name` and calls `get`. */
  asMetric(): Metric {
    return {
      name: this.#name,
      get: async () => this.#snapshot(),
      reset: () => this.#reset(),
    } as unknown as Metric;
  }

  #snapshot(): object {
    let cumulative = 0;
    const values: object[] = [...this.#counts].map((count, i) => {
      cumulative += count;
      return {
        metricName: `${this.#name}_bucket`,
        labels: { ...this.#labels, le: this.#bounds[i] ?? '+Inf' },
        value: cumulative,
      };
    });
    values.push({ metricName: `${this.#name}_sum`, labels: this.#labels, value: this.#sum });
    values.push({ metricName: `${this.#name}_count`, labels: this.#labels, value: cumulative });
    return { name: this.#name, help: this.#help, type: 'histogram', aggregator: 'sum', values };
  }

  #reset(): void {
    this.#counts.fill(0);
    this.#sum = 0;
  }
}
