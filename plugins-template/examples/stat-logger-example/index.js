/**
 * Statistics as a CSV file: `tenon serve --stat-logger csv=stats.csv`. A logger runs in a thread of its own: it may wait for
 * disks and networks, and what it throws is a line of Tenon's log, not the end of the server.
 */
import { appendFile, stat } from 'node:fs/promises';

/** Columns of the file, and where a report has them. */
const columns = {
  time: (report) => new Date(report.timeMs).toISOString(),
  model: (report) => report.engine.modelName,
  running: (report) => report.numRunning,
  waiting: (report) => report.numWaiting,
  prompt_tokens_per_second: (report) => report.promptTokensPerSecond.toFixed(1),
  generation_tokens_per_second: (report) => report.generationTokensPerSecond.toFixed(1),
  kv_cache_usage: (report) => report.kvCacheUsage.toFixed(4),
  generation_tokens_total: (report) => report.totals.numGenerationTokensTotal,
};

const cell = (value) => (/[",\n]/.test(`${value}`) ? `"${`${value}`.replaceAll('"', '""')}"` : `${value}`);
const line = (values) => `${values.map(cell).join(',')}\n`;

/** Called once, when the server starts; an error here keeps it from starting. `argument` is what follows `csv=`. */
async function create({ argument: file = 'tenon-stats.csv' }) {
  const isNew = (await stat(file).catch(() => undefined)) === undefined;
  await appendFile(file, isNew ? line(Object.keys(columns)) : '');
  return {
    /** Called every few seconds while there is work (`--log-stats-interval`), with a StatReport. */
    log: (report) => appendFile(file, line(Object.values(columns).map((read) => read(report)))),
    // A logger that keeps a connection ends it in `close`, for which the server waits up to a second.
  };
}

/** @type {import('@tenon/core/extensions').StatLoggerExtension} */
const csv = { create };
export default csv;
