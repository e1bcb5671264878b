/** What the comparisons under `bench/` measure with; `tenon bench` has more. */
export { Random } from './random.js';
export { interTokenMs } from './request-trace.js';
export { runLoad } from './run-load.js';
export { serveResult } from './serve-metrics.js';
export { summarize } from './statistics.js';
export { streamRequest } from './stream-client.js';
