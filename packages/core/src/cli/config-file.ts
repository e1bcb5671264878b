/** `--config file.yaml`: the options of the command line, by their names. */
import { readFileSync } from 'node:fs';

import { parse } from 'yaml';

import { TenonError } from '../errors.js';
import { findLackingOption } from './lacking-options.js';
import { findOption } from './option-table.js';

/**
 * The file's options as arguments, but for those in `given`. Its `model` is the model, unless the command line has one:
 * `rest` are the command line's arguments.
 */
export function readConfigFile(file: string, given: ReadonlySet<string>, rest: readonly string[]): string[] {
  const entries = Object.entries(readYaml(file)).map(
    ([name, value]) => [name.replaceAll('_', '-'), value] as const,
  );
  return entries.flatMap(([name, value]) => {
    if (name !== 'model') checkName(file, name);
    if (name === 'model') return rest[0]?.startsWith('-') === false ? [] : [textOf(file, name, value)];
    return given.has(name) || value === null ? [] : toArguments(file, name, value);
  });
}

function checkName(file: string, name: string): void {
  const [option = ''] = name.replace(/^no-/, '').split('.', 1);
  const isKnown = [name, option].some((known) => findOption(known) ?? findLackingOption(known));
  if (!isKnown) throw invalid(file, `unknown option '${name}'; see 'tenon serve --help all'`);
}

function toArguments(file: string, name: string, value: unknown): string[] {
  if (typeof value === 'boolean') return [value ? `--${name}` : `--no-${name}`];
  if (Array.isArray(value))
    return [`--${name}=${JSON.stringify(value.map((entry) => textOf(file, name, entry)))}`];
  if (typeof value === 'object') return [`--${name}=${JSON.stringify(value)}`];
  return [`--${name}=${textOf(file, name, value)}`];
}

function textOf(file: string, name: string, value: unknown): string {
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  throw invalid(file, `'${name}' is ${JSON.stringify(value)}; expected a word or a number`);
}

function readYaml(file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw invalid(file, error instanceof Error ? (error.message.split('\n', 1)[0] ?? '') : String(error));
  }
  if (value === null || value === undefined) return {};
  if (typeof value !== 'object' || Array.isArray(value))
    throw invalid(file, 'expected option names with values');
  return value as Record<string, unknown>;
}

function invalid(file: string, problem: string): TenonError {
  return new TenonError('config.invalid-option', `--config ${file}: ${problem}`, { param: '--config' });
}
