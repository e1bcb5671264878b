/** What `tenon bench` and the comparisons under `bench/` measure with. */
export { arrivalOffsetsMs } from './arrivals.js';
export { processUsage } from './process-usage.js';
export { Random } from './random.js';
export { interTokenMs, type RequestTrace } from './request-trace.js';
export { type BenchRequest, randomRequests } from './requests.js';
export { runLoad } from './run-load.js';
export { serveResult } from './serve-metrics.js';
export { summarize } from './statistics.js';
export { streamRequest, type Target } from './stream-client.js';
