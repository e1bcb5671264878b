/** `tenon bench latency [model]`: how long one batch of requests takes, from the call to the last token. */
import { Command } from 'commander';

import { Random } from '../benchmark/random.js';
import { randomRequests } from '../benchmark/requests.js';
import { summarize } from '../benchmark/statistics.js';
import type { LLM } from '../llm.js';
import { checkOutputs, loadBenchModel } from './bench-model.js';
import { addEngineOptions, countOption, jsonFileOption } from './bench-options.js';
import { printFigures, saveJson, showProgress } from './bench-report.js';
import { readOptions } from './parse-options.js';

interface LatencyOptions {
  readonly model: string | undefined;
  readonly inputLen: number;
  readonly outputLen: number;
  readonly batchSize: number;
  readonly numItersWarmup: number;
  readonly numIters: number;
  readonly seed: number;
  readonly outputJson: string | undefined;
}

const percentiles = [10, 25, 50, 75, 90, 99];

export function benchLatencyCommand(): Command {
  const command = new Command('latency')
    .usage('[model] [options]')
    .description('Time one batch of requests, again and again.')
    .argument('[model]', 'folder, GGUF file or hub id; by default the embedded model')
    .option('--model <model>', 'the same, as an option')
    .addOption(countOption('input-len', 'tokens of each prompt', 32))
    .addOption(countOption('output-len', 'tokens of each answer', 128))
    .addOption(countOption('batch-size', 'requests at once', 8))
    .addOption(countOption('num-iters-warmup', 'batches before those that count', 10, 0))
    .addOption(countOption('num-iters', 'batches that count', 30))
    .addOption(countOption('seed', 'makes the prompts', 0, 0))
    .addOption(jsonFileOption())
    .option('--config <file>', 'YAML file of these options');
  return addEngineOptions(command).action(async (model: string | undefined) => {
    const options = command.opts<LatencyOptions>();
    const llm = await loadBenchModel(model ?? options.model, readOptions(command, process.env).engine);
    try {
      report(options, llm.engine.info.modelName, await timeBatches(llm, options));
    } finally {
      await llm.close();
    }
  });
}

/** Seconds of each batch that counts. */
async function timeBatches(llm: LLM, options: LatencyOptions): Promise<number[]> {
  const { numItersWarmup, numIters } = options;
  const runBatch = batchRunner(llm, options);
  const latencies: number[] = [];
  for (let i = 0; i < numItersWarmup + numIters; i++) {
    showProgress(`batch ${i + 1} of ${numItersWarmup} to warm up and ${numIters}`);
    latencies.push(await runBatch());
  }
  showProgress(undefined);
  return latencies.slice(numItersWarmup);
}

function batchRunner(
  llm: LLM,
  { batchSize, inputLen, outputLen, seed }: LatencyOptions,
): () => Promise<number> {
  const requests = randomRequests(
    {
      numRequests: batchSize,
      inputLen: { min: inputLen, max: inputLen },
      outputLen: { min: outputLen, max: outputLen },
      prefixLen: 0,
      lengths: 'uniform',
      vocabSize: llm.engine.info.vocabSize,
    },
    new Random(seed),
  );
  const prompts = requests.map(({ prompt }) => prompt);
  return async () => {
    const startMs = performance.now();
    const outputs = await llm.generate(prompts, { maxTokens: outputLen, ignoreEos: true, temperature: 0 });
    const seconds = (performance.now() - startMs) / 1000;
    checkOutputs(outputs, requests);
    return seconds;
  };
}

function report(
  { batchSize, inputLen, outputLen, outputJson }: LatencyOptions,
  modelName: string,
  latencies: readonly number[],
): void {
  const summary = summarize(latencies, percentiles);
  printFigures(`${modelName}, ${batchSize} requests at once, ${inputLen} tokens in, ${outputLen} out`, [
    ['mean latency (s)', summary.mean],
    ['standard deviation (s)', summary.std],
    ...[...summary.percentiles].map(([percentile, value]) => [`p${percentile} latency (s)`, value] as const),
    ['output tokens per second', (batchSize * outputLen) / summary.mean],
  ]);
  saveJson(outputJson, {
    avg_latency: summary.mean,
    latencies,
    percentiles: Object.fromEntries(summary.percentiles),
  });
}
