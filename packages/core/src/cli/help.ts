/** `--help`: the options most people need; `--help all`, `--help memory`, `--help max-num-seqs` show others. */
import { type Command, Help } from 'commander';

import { TenonError } from '../errors.js';
import { findOption, type OptionRow, optionTable } from './option-table.js';

/** The topic that the arguments ask for: empty for `--help` alone; undefined without `--help`. */
export function helpTopic(argv: readonly string[]): string | undefined {
  const at = argv.findIndex((argument) => /^(--help|-h)(=|$)/.test(argument));
  if (at < 0) return undefined;
  const [, topic] = (argv[at] ?? '').split('=', 2);
  return topic ?? (argv[at + 1]?.startsWith('-') === false ? argv[at + 1] : '');
}

/** @throws config.invalid-option for a topic that is none. */
export function showHelp(command: Command, topic: string): void {
  const rows = new Set(rowsAbout(topic.toLowerCase().replace(/^--/, '').replaceAll('_', '-')));
  const others = topic === '' ? moreHelp : '';
  command
    .configureHelp({
      visibleOptions: (shown) =>
        new Help().visibleOptions(shown).filter((option) => {
          const row = findOption(option.long?.slice('--'.length) ?? '');
          return row === undefined ? topic === '' : rows.has(row);
        }),
    })
    .addHelpText('after', others)
    .outputHelp();
}

/** What most people need. */
const commonNames: ReadonlySet<string> = new Set([
  'served-model-name', 'dtype', 'max-model-len', 'host', 'port', 'api-key', 'chat-template', 'gpu-memory-utilization',
  'max-num-seqs', 'max-num-batched-tokens', 'device', 'num-threads', 'log-level', 'log-requests',
]); // prettier-ignore

const groups = [...new Set(optionTable.map((row) => row.group.toLowerCase()))];

const moreHelp = `
More: --help all; --help ${groups.join('|')}; --help <part of a name>`;

function rowsAbout(topic: string): readonly OptionRow[] {
  if (topic === '') return optionTable.filter((row) => commonNames.has(row.name));
  if (topic === 'all') return optionTable;
  if (groups.includes(topic)) return optionTable.filter((row) => row.group.toLowerCase() === topic);
  const named = optionTable.filter((row) =>
    [row.name, ...(row.aliases ?? [])].some((name) => name.includes(topic)),
  );
  if (named.length > 0) return named;
  throw new TenonError(
    'config.invalid-option',
    `no help on '${topic}'; expected all, ${groups.join(', ')}, or a part of an option's name`,
  );
}
