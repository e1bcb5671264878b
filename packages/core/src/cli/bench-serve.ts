/** `tenon bench serve`: how a running server answers under load. */
import { join } from 'node:path';

import { Command, Option } from 'commander';

import { arrivalOffsetsMs } from '../benchmark/arrivals.js';
import { Random } from '../benchmark/random.js';
import { asText, type BenchRequest, customRequests, randomRequests } from '../benchmark/requests.js';
import { type LoadResult, runLoad } from '../benchmark/run-load.js';
import {
  detailedResult,
  type LatencyMetric,
  latencyMetrics,
  serveResult,
  type ServeResult,
} from '../benchmark/serve-metrics.js';
import { backends, streamRequest, type Target } from '../benchmark/stream-client.js';
import { TenonError } from '../errors.js';
import { ApiClient } from './api-client.js';
import {
  addDatasetOptions,
  type DatasetOptions,
  fittedOptions,
  randomRequestOptions,
} from './bench-dataset.js';
import { countOption, invalid, numberOption } from './bench-options.js';
import { printFigures, printTable, saveJson, showProgress } from './bench-report.js';
import {
  parseGoodput,
  parseJsonObject,
  parseMetrics,
  parsePairs,
  parsePercentiles,
} from './bench-serve-values.js';

interface ServeOptions extends DatasetOptions {
  readonly backend: Target['backend'];
  readonly baseUrl: string | undefined;
  readonly host: string;
  readonly port: number;
  readonly endpoint: string | undefined;
  readonly model: string | undefined;
  readonly apiKey: string | undefined;
  readonly header: readonly string[] | undefined;
  readonly datasetPath: string | undefined;
  readonly requestRate: number;
  readonly burstiness: number;
  readonly maxConcurrency: number | undefined;
  readonly numWarmups: number;
  readonly temperature: number;
  readonly ignoreEos: boolean;
  readonly extraBody: Readonly<Record<string, unknown>>;
  readonly percentileMetrics: readonly LatencyMetric[];
  readonly metricPercentiles: readonly number[];
  readonly goodput: readonly string[] | undefined;
  readonly saveResult?: boolean;
  readonly saveDetailed?: boolean;
  readonly resultDir: string;
  readonly resultFilename: string | undefined;
  readonly label: string | undefined;
  readonly metadata: readonly string[] | undefined;
}

export function benchServeCommand(): Command {
  const command = new Command('serve')
    .usage('[options]')
    .description('Load a running server with requests, over HTTP, and time its streams.')
    .optionsGroup('Server:')
    .addOption(
      new Option('--backend <name>', 'completions, or chat completions').choices(backends).default('openai'),
    )
    .option('--base-url <url>', 'the server, instead of host and port')
    .option('--host <host>', 'its host', '127.0.0.1')
    .addOption(countOption('port', 'its port', 8000))
    .option('--endpoint <path>', "default: /v1/completions, or the chat's")
    .option('--model <name>', "one of the server's models (default: its first)")
    .option('--api-key <key>', 'default: TENON_API_KEY, OPENAI_API_KEY')
    .option('--header <name=value...>', 'further headers')
    .optionsGroup('Requests:');
  addDatasetOptions(command, ['conversations', 'custom'])
    .addOption(countOption('random-vocab-size', 'prompts are token ids below this', 1024, 2))
    .option('--dataset-path <file>', 'custom: lines of {"prompt": "…", "output_tokens": 128}')
    .addOption(
      numberOption('request-rate', 'requests per second; inf: all at once', Infinity, Number.MIN_VALUE),
    )
    .addOption(
      numberOption('burstiness', '1: Poisson arrivals; less: burstier; more: evener', 1, Number.MIN_VALUE),
    )
    .addOption(countOption('max-concurrency', 'requests at once at most', undefined))
    .addOption(countOption('num-warmups', 'requests before those that count', 1, 0))
    .addOption(numberOption('temperature', '0: the most likely answer', 0, 0))
    .option('--no-ignore-eos', 'answers may end before they have all the tokens that were asked for')
    .addOption(
      new Option('--extra-body <json>', 'laid over every request')
        .argParser(parseJsonObject)
        .default({}, '{}'),
    )
    .optionsGroup('Figures:')
    .addOption(
      new Option('--percentile-metrics <names>', 'some of ttft,tpot,itl,e2el')
        .argParser(parseMetrics)
        .default(latencyMetrics, latencyMetrics.join(',')),
    )
    .addOption(
      new Option('--metric-percentiles <list>', 'percentiles to show')
        .argParser(parsePercentiles)
        .default([99], '99'),
    )
    .option('--goodput <name:ms...>', 'also count requests within these, as ttft:500 tpot:50 e2el:9000')
    .option('--save-result', 'write the figures to a JSON file')
    .option('--save-detailed', 'also each request: lengths, times, text, error')
    .option('--result-dir <folder>', 'where the file goes', '.')
    .option('--result-filename <name>', 'default: made of backend, rate, model and date')
    .option('--label <text>', 'goes into the file')
    .option('--metadata <name=value...>', 'go into the file');
  return command.action(() => benchServe(command));
}

async function benchServe(command: Command): Promise<void> {
  const given = command.opts<ServeOptions>();
  const { target, maxModelLen } = await findTarget(given);
  const options = fittedOptions(command, given, maxModelLen);
  const random = new Random(options.seed);
  const requests = makeRequests(options, random);
  const offsetsMs = arrivalOffsetsMs({ ...options, numRequests: requests.length }, random);
  await warmUp(
    target,
    makeRequests({ ...options, numPrompts: options.numWarmups }, new Random(options.seed + 1)),
  );
  const load = await runLoad(target, requests, {
    offsetsMs,
    maxConcurrency: options.maxConcurrency ?? Infinity,
    onDone: (_trace, numDone) => showProgress(`${numDone} of ${requests.length} requests`),
  });
  showProgress(undefined);
  report(options, target, load);
}

/** The server's model, and the tokens it takes where the server says so. */
async function findTarget(
  options: ServeOptions,
): Promise<{ target: Target; maxModelLen: number | undefined }> {
  const { TENON_API_KEY: tenonKey, OPENAI_API_KEY: openaiKey } = process.env;
  const apiKey = options.apiKey ?? tenonKey ?? openaiKey;
  const base = (options.baseUrl ?? `http://${options.host}:${options.port}`).replace(/\/+$/, '');
  const cards = await new ApiClient(`${base}/v1`, apiKey).modelCards();
  const card = cards.find(({ id }) => id === options.model) ?? cards[0];
  const path =
    options.endpoint ?? (options.backend === 'openai' ? '/v1/completions' : '/v1/chat/completions');
  const { backend, ignoreEos, temperature, extraBody } = options;
  const headers = {
    ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
    ...parsePairs('header', options.header),
  };
  const model = options.model ?? card?.id ?? '';
  const url = new URL(`${base}${path}`);
  return {
    target: { url, backend, model, headers, ignoreEos, temperature, extraBody },
    maxModelLen: card?.max_model_len,
  };
}

function makeRequests(options: ServeOptions, random: Random): BenchRequest[] {
  if (options.datasetName === 'custom') {
    if (options.datasetPath === undefined)
      throw invalid('dataset-name', 'custom', 'a --dataset-path with it');
    return customRequests(options.datasetPath, options.outputLen.max).slice(0, options.numPrompts);
  }
  const requests = randomRequests(randomRequestOptions(options), random);
  return options.backend === 'openai' ? requests : requests.map(asText);
}

/** Also finds out whether the server answers as it should, before it is loaded. */
async function warmUp(target: Target, requests: readonly BenchRequest[]): Promise<void> {
  for (const [i, request] of requests.entries()) {
    showProgress(`warm-up ${i + 1} of ${requests.length}`);
    const { error } = await streamRequest(target, request);
    if (error !== undefined) throw failed(`the first request to ${target.url} failed: ${error}`);
  }
}

function report(options: ServeOptions, target: Target, { traces, durationMs }: LoadResult): void {
  const { percentileMetrics, metricPercentiles, goodput } = options;
  const result = serveResult(traces, {
    durationMs,
    percentiles: metricPercentiles,
    metrics: percentileMetrics,
    goodput: goodput && parseGoodput(goodput),
  });
  printResult(target, options, result);
  if (options.saveResult === true || options.saveDetailed === true) {
    const details = options.saveDetailed === true ? detailedResult(traces) : {};
    saveJson(resultFile(options, target), { ...describeRun(options, target), ...result, ...details });
  }
  const failure = traces.find(({ error }) => error !== undefined)?.error;
  if (failure !== undefined)
    throw failed(`${result.failed} of ${traces.length} requests failed, the first with: ${failure}`);
}

function printResult(target: Target, options: ServeOptions, result: ServeResult): void {
  printFigures(`${target.model} at ${target.url}`, [
    ['duration (s)', result.duration],
    ['completed requests', result.completed],
    ['failed requests', result.failed],
    ['input tokens', result.total_input_tokens],
    ['output tokens', result.total_output_tokens],
    ['requests per second', result.request_throughput],
    ...(result.request_goodput === null
      ? []
      : [['good requests per second', result.request_goodput] as const]),
    ['output tokens per second', result.output_throughput],
    ['  most in one second', result.max_output_tokens_per_s],
    ['all tokens per second', result.total_token_throughput],
    ['most requests at once', result.max_concurrent_requests],
  ]);
  const columns = [
    'mean',
    'median',
    'std',
    ...options.metricPercentiles.map((percentile) => `p${percentile}`),
  ];
  printTable(
    ['ms', ...columns],
    options.percentileMetrics.map((metric) => [
      metricNames[metric],
      ...columns.map((column) => result[`${column}_${metric}_ms`] ?? 0),
    ]),
  );
}

const metricNames: Readonly<Record<LatencyMetric, string>> = {
  ttft: 'time to first token',
  tpot: 'time per output token',
  itl: 'inter-token latency',
  e2el: 'end-to-end latency',
};

function describeRun(options: ServeOptions, { model, backend }: Target): object {
  const { label, metadata, numPrompts, requestRate, burstiness, maxConcurrency } = options;
  return {
    date: new Date().toISOString(),
    backend,
    label,
    model_id: model,
    num_prompts: numPrompts,
    request_rate: Number.isFinite(requestRate) ? requestRate : 'inf',
    burstiness,
    max_concurrency: maxConcurrency ?? null,
    ...parsePairs('metadata', metadata),
  };
}

function resultFile(options: ServeOptions, { model, backend }: Target): string {
  const { resultDir, resultFilename, requestRate, maxConcurrency } = options;
  const concurrency = maxConcurrency === undefined ? '' : `-concurrency${maxConcurrency}`;
  const rate = Number.isFinite(requestRate) ? requestRate : 'inf';
  const modelName = model.split('/').at(-1);
  const date = new Date().toISOString().replaceAll(/[:.]/g, '-');
  return join(resultDir, resultFilename ?? `${backend}-${rate}qps${concurrency}-${modelName}-${date}.json`);
}

function failed(problem: string): TenonError {
  return new TenonError('request.benchmark-failed', problem);
}
