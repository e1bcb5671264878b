/**
 * Arguments, config file and environment to option values. An argument wins over the config file, the config file over the
 * environment. Commander parses what is left after the spellings that it does not know are made plain: underscores,
 * vLLM's short forms, dotted keys, options that Tenon lacks.
 */
import { type Command, Option } from 'commander';

import { TenonError } from '../errors.js';
import { readConfigFile } from './config-file.js';
import { expandShortForm, findLackingOption, lackingVariables } from './lacking-options.js';
import { findOption, optionKey, type OptionOwner, type OptionRow, optionTable } from './option-table.js';
import { type OptionValue, parseOptionValue, setDotted } from './option-values.js';

export type OptionValues = Readonly<Record<OptionOwner, Readonly<Record<string, OptionValue>>>>;

type Environment = Readonly<Record<string, string | undefined>>;

/** What commander has collected, by the option's name. */
type Collected = Map<OptionRow, readonly string[]>;

const collectedBy = new WeakMap<Command, Collected>();

/** Adds the options of `rows` to a command; `readOptions` gives their values when it runs. */
export function addOptions(command: Command, rows: readonly OptionRow[] = optionTable): Command {
  const collected: Collected = new Map();
  collectedBy.set(command, collected);
  for (const row of rows) for (const option of commanderOptions(row, collected)) command.addOption(option);
  return command;
}

function commanderOptions(row: OptionRow, collected: Collected): Option[] {
  const help = row.default === undefined ? row.help : `${row.help} (default: ${row.default})`;
  const short = row.short === undefined ? '' : `${row.short}, `;
  const isFlag = row.type === 'flag';
  const value = isFlag ? '' : row.type === 'list' ? ` <${placeholder(row)}...>` : ` <${placeholder(row)}>`;
  const store = (word: string, previous: readonly string[] | undefined): readonly string[] => {
    const words = row.type === 'list' ? [...(previous ?? []), word] : [word];
    collected.set(row, words);
    return words;
  };
  const shown = new Option(`${short}--${row.name}${value}`, help).helpGroup(`${row.group}:`);
  const hidden = (row.aliases ?? []).map((alias) => new Option(`--${alias}${value}`).hideHelp());
  if (!isFlag) return [shown, ...hidden].map((option) => option.argParser(store));
  const names = [row.name, ...(row.aliases ?? [])];
  return [shown, ...hidden, ...names.map((name) => new Option(`--no-${name}`).hideHelp())];
}

function placeholder(row: OptionRow): string {
  if (row.choices !== undefined && row.choices.length <= 3) return row.choices.join('|');
  return row.type === 'integer' || row.type === 'number'
    ? 'n'
    : row.type === 'json'
      ? 'json'
      : row.type === 'list'
        ? 'words'
        : 'value';
}

/** All values that were given, checked, by owner and key. */
export function readOptions(command: Command, env: Environment): OptionValues {
  const values: Record<OptionOwner, Record<string, OptionValue>> = { engine: {}, server: {}, command: {} };
  const put = (row: OptionRow, value: OptionValue): void => {
    values[row.owner][optionKey(row)] = value;
  };
  for (const [row, value] of environmentValues(env)) put(row, value);
  const collected = collectedBy.get(command) ?? new Map<OptionRow, readonly string[]>();
  for (const [row, words] of collected) put(row, parseOptionValue(row, words, `--${row.name}`));
  for (const [row, value] of flagValues(command)) put(row, value);
  return values;
}

function environmentValues(env: Environment): [OptionRow, OptionValue][] {
  for (const [name, remedy] of Object.entries(lackingVariables)) {
    if (env[name] === undefined) continue;
    throw new TenonError('config.invalid-environment', `${name} is not supported: ${remedy}`, {
      param: name,
    });
  }
  return optionTable.flatMap((row) => {
    const text = row.env === undefined ? undefined : env[row.env];
    if (row.env === undefined || text === undefined) return [];
    if (text === '') {
      throw new TenonError('config.invalid-environment', `${row.env} is empty; unset it, or give it a value`);
    }
    return [
      [row, parseOptionValue(row, [row.env === 'TENON_LOGGING_LEVEL' ? text.toLowerCase() : text], row.env)],
    ];
  });
}

function flagValues(command: Command): [OptionRow, OptionValue][] {
  return optionTable.flatMap((row) => {
    if (row.type !== 'flag') return [];
    const names = [row.name, ...(row.aliases ?? [])];
    const given = names.find((name) => command.getOptionValueSource(optionKey({ name })) === 'cli');
    return given === undefined ? [] : [[row, command.getOptionValue(optionKey({ name: given })) === true]];
  });
}

/** The arguments as commander can take them, with those of `--config` put before the user's own. */
export function normalizeArguments(argv: readonly string[]): string[] {
  const plain = withoutLacking(argv.map((argument) => plainSpelling(expandShortForm(argument))));
  const { rest, file } = takeConfig(plain);
  if (file === undefined) return joinDotted(rest);
  const given = new Set(rest.filter((argument) => argument.startsWith('--')).map(nameOf));
  const fromFile = readConfigFile(file, given, rest);
  return joinDotted([...withoutLacking(fromFile), ...rest]);
}

/** Underscores in names become hyphens; what follows a dot or an equals sign stays. */
function plainSpelling(argument: string): string {
  const match = /^(--[\w-]+)([.=].*)?$/s.exec(argument);
  if (match === null) return argument;
  return `${(match[1] ?? '').replaceAll('_', '-')}${match[2] ?? ''}`;
}

/** `--no-x`, `--x=1` and `--x.y` as `x`. */
function nameOf(argument: string): string {
  const name = argument.slice(2).split(/[.=]/, 1)[0] ?? '';
  return name.startsWith('no-') && findOption(name) === undefined ? name.slice(3) : name;
}

/** Refuses options that Tenon lacks, and drops them where their value asks for nothing. */
function withoutLacking(argv: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] ?? '';
    const lacking = argument.startsWith('--') ? findLackingOption(nameOf(argument)) : undefined;
    if (lacking === undefined) {
      kept.push(argument);
      continue;
    }
    const hasOwnValue = argument.includes('=');
    const value = hasOwnValue ? argument.slice(argument.indexOf('=') + 1) : argv[i + 1];
    if (value === undefined || !lacking.neutral?.includes(value)) {
      const name = argument.split('=', 1)[0] ?? argument;
      throw new TenonError('config.invalid-option', `${name} is not supported: ${lacking.reason}`, {
        param: name,
      });
    }
    if (!hasOwnValue) i += 1;
  }
  return kept;
}

function takeConfig(argv: readonly string[]): { rest: string[]; file: string | undefined } {
  const rest = [...argv];
  const at = rest.findIndex((argument) => argument === '--config' || argument.startsWith('--config='));
  if (at < 0) return { rest, file: undefined };
  const [argument = ''] = rest.splice(at, 1);
  const file = argument.includes('=') ? argument.slice('--config='.length) : rest.splice(at, 1)[0];
  if (file === undefined || file.startsWith('--')) {
    throw new TenonError('config.invalid-option', '--config needs a file name', { param: '--config' });
  }
  return { rest, file };
}

/** `--x.a 1 --x.b.c 2` becomes `--x '{"a":1,"b":{"c":2}}'`, over an object that was given whole. */
function joinDotted(argv: readonly string[]): string[] {
  const objects = new Map<string, Record<string, unknown>>();
  const rest: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] ?? '';
    const match = /^--([\w-]+)(?:\.([\w.-]+))?(?:=(.*))?$/s.exec(argument);
    const row = match === null ? undefined : findOption(match[1] ?? '');
    if (match === null || row?.type !== 'json') {
      rest.push(argument);
      continue;
    }
    const text = match[3] ?? argv[++i] ?? '';
    const object = objects.get(row.name) ?? {};
    objects.set(row.name, object);
    if (match[2] === undefined) Object.assign(object, parseOptionValue(row, [text], `--${row.name}`));
    else setDotted(object, match[2].split('.'), text);
  }
  return [...rest, ...[...objects].flatMap(([name, object]) => [`--${name}`, JSON.stringify(object)])];
}

/** Error messages of the engine name options in camelCase; users know them as `--kebab-case`. */
export function respellOption(error: TenonError): TenonError {
  if (error.kind !== 'config' && error.kind !== 'capacity') return error;
  let { message } = error;
  for (const row of optionTable) {
    const key = optionKey(row);
    if (!/[A-Z]/.test(key) && error.param !== key) continue;
    // A key of one word may be meant as a word from there on.
    const flags = /[A-Z]/.test(key) ? 'g' : '';
    message = message.replace(
      new RegExp(`(?<![\\w.-])(?:option )?${key}(?![\\w.-])`, flags),
      `--${row.name}`,
    );
  }
  return new TenonError(error.code, message, { param: error.param, cause: error.cause });
}
