/** Options that say what requests a benchmark makes. */
import { type Command, Option } from 'commander';

import type { LengthRange, RandomRequestOptions } from '../benchmark/requests.js';
import { countOption, invalid, lengthOption, numberOption } from './bench-options.js';

export interface DatasetOptions {
  readonly datasetName: 'random' | 'conversations' | 'custom';
  readonly numPrompts: number;
  readonly inputLen: LengthRange;
  readonly outputLen: LengthRange;
  readonly randomRangeRatio: number;
  readonly randomPrefixLen: number;
  readonly randomVocabSize: number;
  readonly seed: number;
}

/** vLLM's defaults. */
const defaults = { numPrompts: 1000, inputLen: 1024, outputLen: 128 };

/** `datasets`: those besides `random` that the command knows. */
export function addDatasetOptions(
  command: Command,
  datasets: readonly string[] = ['conversations'],
): Command {
  const names = ['random', ...datasets];
  return command
    .addOption(
      new Option(
        '--dataset-name <name>',
        'lengths are uniform (random), or mostly short and some long (conversations)',
      )
        .choices(names)
        .default('random'),
    )
    .addOption(countOption('num-prompts', 'requests', defaults.numPrompts))
    .addOption(lengthOption('input-len', 'tokens of prompts, or a range as 32:256', defaults.inputLen))
    .addOption(lengthOption('output-len', 'tokens of answers, or a range', defaults.outputLen))
    .addOption(lengthOption('random-input-len', 'the same', defaults.inputLen).hideHelp())
    .addOption(lengthOption('random-output-len', 'the same', defaults.outputLen).hideHelp())
    .addOption(numberOption('random-range-ratio', 'lengths within this share of those, 0…1', 0, 0))
    .addOption(countOption('random-prefix-len', 'tokens in front of every prompt, the same in all', 0, 0))
    .addOption(countOption('seed', 'makes the requests', 0, 0));
}

/** vLLM's names of the lengths stand in for ours; lengths that nobody gave are cut to what the model takes. */
export function fittedOptions<T extends DatasetOptions>(
  command: Command,
  options: T,
  maxModelLen: number | undefined,
): T {
  const inputLen = givenLength(command, 'inputLen', 'randomInputLen');
  const outputLen = givenLength(command, 'outputLen', 'randomOutputLen');
  const room = (maxModelLen ?? Infinity) - options.randomPrefixLen;
  const output = outputLen ?? fitted(defaults.outputLen, Math.floor(room / 2));
  const input = inputLen ?? fitted(defaults.inputLen, room - output.max);
  if (inputLen === undefined && input.max < defaults.inputLen)
    process.stderr.write(
      `prompts have ${input.max} tokens: the model takes ${maxModelLen} with the answer\n`,
    );
  return { ...options, inputLen: input, outputLen: output };
}

function givenLength(command: Command, ...keys: readonly string[]): LengthRange | undefined {
  const key = keys.find((name) => command.getOptionValueSource(name) === 'cli');
  return key === undefined ? undefined : (command.getOptionValue(key) as LengthRange);
}

function fitted(length: number, room: number): LengthRange {
  const max = Math.max(1, Math.min(length, room));
  return { min: max, max };
}

export function randomRequestOptions(options: DatasetOptions): RandomRequestOptions {
  const { datasetName, numPrompts, inputLen, outputLen, randomRangeRatio, randomPrefixLen } = options;
  if (randomRangeRatio >= 1) throw invalid('random-range-ratio', String(randomRangeRatio), 'below 1');
  return {
    numRequests: numPrompts,
    inputLen: widened(inputLen, randomRangeRatio),
    outputLen: widened(outputLen, randomRangeRatio),
    prefixLen: randomPrefixLen,
    lengths: datasetName === 'conversations' ? 'lognormal' : 'uniform',
    vocabSize: options.randomVocabSize,
  };
}

function widened({ min, max }: LengthRange, ratio: number): LengthRange {
  return { min: Math.max(1, Math.floor(min * (1 - ratio))), max: Math.ceil(max * (1 + ratio)) };
}
