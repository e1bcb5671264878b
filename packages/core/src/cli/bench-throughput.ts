/** `tenon bench throughput [model]`: how many tokens per second, with all requests there from the start. */
import { Command } from 'commander';

import { type BenchRequest, randomRequests } from '../benchmark/requests.js';
import { Random } from '../benchmark/random.js';
import { sum } from '../benchmark/statistics.js';
import type { LLM } from '../llm.js';
import {
  addDatasetOptions,
  type DatasetOptions,
  fittedOptions,
  randomRequestOptions,
} from './bench-dataset.js';
import { checkOutputs, loadBenchModel } from './bench-model.js';
import { addEngineOptions, jsonFileOption } from './bench-options.js';
import { printFigures, saveJson, showProgress } from './bench-report.js';
import { readOptions } from './parse-options.js';

interface ThroughputOptions extends DatasetOptions {
  readonly model: string | undefined;
  readonly outputJson: string | undefined;
}

export function benchThroughputCommand(): Command {
  const command = new Command('throughput')
    .usage('[model] [options]')
    .description('Run many requests, all there from the start.')
    .argument('[model]', 'folder, GGUF file or hub id; by default the embedded model')
    .option('--model <model>', 'the same, as an option');
  addDatasetOptions(command)
    .addOption(jsonFileOption())
    .option('--config <file>', 'YAML file of these options');
  return addEngineOptions(command).action(async (model: string | undefined) => {
    const given = command.opts<ThroughputOptions>();
    const llm = await loadBenchModel(model ?? given.model, readOptions(command, process.env).engine);
    try {
      const { maxModelLen, vocabSize, modelName } = llm.engine.info;
      const options = fittedOptions(command, given, maxModelLen);
      const random = new Random(options.seed);
      const requests = randomRequests(
        randomRequestOptions({ ...options, randomVocabSize: vocabSize }),
        random,
      );
      report(options, modelName, requests, await timeAll(llm, requests));
    } finally {
      await llm.close();
    }
  });
}

/** Seconds of all requests together. */
async function timeAll(llm: LLM, requests: readonly BenchRequest[]): Promise<number> {
  const prompts = requests.map(({ prompt }) => prompt);
  const params = requests.map(({ numOutputTokens }) => ({
    maxTokens: numOutputTokens,
    ignoreEos: true,
    temperature: 0,
  }));
  await llm.generate(prompts.slice(0, 1), { ...params[0], maxTokens: 1 });
  let numDone = 0;
  llm.engine.onRequestFinished(() => showProgress(`${++numDone} of ${requests.length} requests`));
  const startMs = performance.now();
  const outputs = await llm.generate(prompts, params);
  const seconds = (performance.now() - startMs) / 1000;
  showProgress(undefined);
  checkOutputs(outputs, requests);
  return seconds;
}

function report(
  { outputJson }: ThroughputOptions,
  modelName: string,
  requests: readonly BenchRequest[],
  duration: number,
): void {
  const numInputTokens = sum(requests.map(({ prompt }) => prompt.length));
  const numOutputTokens = sum(requests.map(({ numOutputTokens: count }) => count));
  const result = {
    duration,
    completed: requests.length,
    failed: 0,
    total_input_tokens: numInputTokens,
    total_output_tokens: numOutputTokens,
    request_throughput: requests.length / duration,
    output_throughput: numOutputTokens / duration,
    total_token_throughput: (numInputTokens + numOutputTokens) / duration,
  };
  printFigures(`${modelName}, ${requests.length} requests`, [
    ['duration (s)', duration],
    ['input tokens', numInputTokens],
    ['output tokens', numOutputTokens],
    ['requests per second', result.request_throughput],
    ['output tokens per second', result.output_throughput],
    ['all tokens per second', result.total_token_throughput],
  ]);
  saveJson(outputJson, result);
}
