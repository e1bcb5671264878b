/** Options that the benchmarks share, and how their words are read. */
import { type Command, Option } from 'commander';

import type { LengthRange } from '../benchmark/requests.js';
import { TenonError } from '../errors.js';
import { optionTable } from './option-table.js';
import { parseInteger } from './option-values.js';
import { addOptions } from './parse-options.js';

export function countOption(name: string, help: string, fallback: number | undefined, min = 1): Option {
  const option = new Option(`--${name} <n>`, help);
  if (fallback !== undefined) option.default(fallback);
  return option.argParser((text) => {
    const count = parseInteger(text, `--${name}`);
    if (count >= min) return count;
    throw invalid(name, text, `at least ${min}`);
  });
}

/** `inf` is a number too. */
export function numberOption(name: string, help: string, fallback: number, min: number): Option {
  const shown = fallback === Infinity ? 'inf' : undefined;
  return new Option(`--${name} <n>`, help).default(fallback, shown).argParser((text) => {
    const value = text === 'inf' ? Infinity : text.trim() === '' ? NaN : Number(text);
    if (value >= min) return value;
    throw invalid(name, text, `a number of at least ${min}`);
  });
}

/** `128`, or `32:256`. */
export function lengthOption(name: string, help: string, fallback: number): Option {
  return new Option(`--${name} <n>`, help)
    .default({ min: fallback, max: fallback }, String(fallback))
    .argParser((text) => parseLengthRange(text, `--${name}`));
}

export function parseLengthRange(text: string, source: string): LengthRange {
  const [low = '', high = low, ...rest] = text.split(':');
  const range = { min: parseInteger(low, source), max: parseInteger(high, source) };
  if (rest.length === 0 && range.min >= 1 && range.max >= range.min) return range;
  throw invalid(source.slice(2), text, 'a number of tokens, or a range such as 32:256');
}

export function jsonFileOption(): Option {
  return new Option('--output-json <file>', 'write the figures to this file');
}

/** Options of benchmarks that load a model themselves: those of its engine, but for the seed, which is the benchmark's. */
export function addEngineOptions(command: Command): Command {
  const rows = optionTable.filter((row) => row.owner === 'engine' && row.name !== 'seed');
  return addOptions(command, rows);
}

export function invalid(name: string, text: string, expected: string): TenonError {
  const message = `--${name} is '${text}'; expected ${expected}`;
  return new TenonError('config.invalid-option', message, { param: `--${name}` });
}
