/** `tenon conform`: runs the conformance kit on a backend. Ends with status 1 where a case fails. */
import { existsSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, Option } from 'commander';

import type { BackendModule } from '../backend/index.js';
import type { ConformanceOptions, ConformanceReport, Level, PackageUnderTest } from '../conformance/index.js';
import { TenonError } from '../errors.js';
import { discoverBackends, type Candidate } from '../plugins/discover.js';
import { loadBackendModule } from '../plugins/load-backend.js';
import { readJson } from '../plugins/manifest.js';
import { superviseCases, type ChildMessage } from './conform-process.js';
import { progressOfCases } from './progress.js';

interface ConformOptions {
  readonly backend?: string;
  readonly plugin: readonly string[];
  readonly level?: string;
  readonly op?: string;
  readonly case?: string;
  readonly sample?: string;
  readonly goldens?: string;
  readonly seed: string;
  readonly json?: boolean;
  readonly output?: string;
  readonly list?: boolean;
  readonly from?: string;
}

export function conformCommand(): Command {
  return new Command('conform')
    .description('Test a backend against the contract: package, memory, ops, programs, serving, speed.')
    .option('--backend <id>', "the backend's id, or a device of it (npu:1); default: the only one there is")
    .option('--plugin <words...>', 'packages or folders with further backends', [])
    .option('--level <n>', '0 to 5: levels up to this one; 2-3: only these (default: all)')
    .option('--op <name>', 'only cases of this op')
    .option('--case <name>', 'only this case; * stands for anything')
    .option('--sample <n>', 'at most so many cases of each op; the seed says which')
    .option('--goldens <folder>', 'golden checkpoints besides those that come with the package')
    .option('--seed <n>', 'random numbers of all cases follow from it', '1')
    .option('--output <file>', 'write the report (conformance.json) there')
    .option('--json', 'print the report as JSON')
    .option('--list', 'print the names of the cases, and run none')
    .addOption(new Option('--from <n>', 'cases that another process has run').hideHelp())
    .action(conform);
}

async function conform(options: ConformOptions): Promise<void> {
  const { listCases } = await import('../conformance/index.js');
  const chosen = caseOptions(options);
  const cases = listCases(chosen);
  if (cases.length === 0)
    throw invalid('no case has these --level, --op and --case; see tenon conform --list');
  if (options.list === true) return print(cases.map(({ name }) => name));
  if (process.send !== undefined) return runAsChild(options, chosen);
  // what is wrong with the options is said here, not by the child
  findBackend(options);
  const progress = await progressOfCases(cases.length);
  const report = await superviseCases(chosen, cases, progress).finally(() => progress.stop());
  await tell(report, options);
}

/** Runs the cases from `--from` on, and sends what happens to the process that watches. */
async function runAsChild(options: ConformOptions, chosen: ConformanceOptions): Promise<void> {
  const { runConformance } = await import('../conformance/index.js');
  const found = findBackend(options);
  const from = Number(options.from ?? 0);
  const report = await runConformance(await found.load(), { ...chosen, ...found.options, from }, (event) =>
    send({ event }),
  );
  await new Promise<void>((resolve) =>
    process.send!({ speeds: report.speeds } satisfies ChildMessage, () => resolve()),
  );
  // what a backend has left running does not keep the process from ending
  setTimeout(() => process.exit(), 2000).unref();
  process.disconnect();
}

const send = (message: ChildMessage): void => void process.send!(message);

async function tell(report: ConformanceReport, options: ConformOptions): Promise<void> {
  const { textReport } = await import('../conformance/index.js');
  const json = JSON.stringify(report, undefined, 2);
  if (options.output !== undefined) writeFileSync(options.output, `${json}\n`);
  const plugins = options.plugin.length === 0 ? '' : ` --plugin ${options.plugin.join(' ')}`;
  const goldens = options.goldens === undefined ? '' : ` --goldens ${options.goldens}`;
  const how = `--backend ${options.backend ?? report.backend.id}${plugins}${goldens}`;
  print([options.json === true ? json : textReport(report, how)]);
  if (report.failures.length > 0) process.exitCode = 1;
}

function caseOptions(options: ConformOptions): ConformanceOptions {
  const { level, op, case: name, seed, sample, goldens } = options;
  if (!/^\d+$/.test(seed)) throw invalid(`--seed is '${seed}'; expected a whole number`);
  if (sample !== undefined && !/^[1-9]\d*$/.test(sample))
    throw invalid(`--sample is '${sample}'; expected a number of cases`);
  return {
    seed: Number(seed),
    ...(level !== undefined && { levels: parseLevels(level) }),
    ...(op !== undefined && { op }),
    ...(name !== undefined && { case: name }),
    ...(sample !== undefined && { sample: Number(sample) }),
    ...(goldens !== undefined && { goldens }),
  };
}

/** `3`: 0 to 3. `2-3`: those. */
function parseLevels(text: string): Level[] {
  const match = /^(?:([0-5])-)?([0-5])$/.exec(text);
  if (match === null) throw invalid(`--level is '${text}'; expected 0 to 5, or a range such as 2-3`);
  const [first, last] = [Number(match[1] ?? 0), Number(match[2])];
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) as Level);
}

interface FoundBackend {
  readonly load: () => Promise<BackendModule>;
  readonly options: { readonly package?: PackageUnderTest; readonly deviceId?: string };
}

/** Runs no code of it. In a backend's own folder, that is the one. `reference` is core's own. */
function findBackend({ backend: wanted, plugin }: ConformOptions): FoundBackend {
  const [id] = wanted?.split(':') ?? [];
  const options = wanted?.includes(':') === true ? { deviceId: wanted } : {};
  if (id === 'reference')
    return { load: async () => (await import('../conformance/index.js')).referenceBackend, options };
  const plugins = plugin.length > 0 || !isBackendFolder('.') ? plugin : [resolve('.')];
  const candidates = discoverBackends({ plugins, root: process.cwd(), env: process.env });
  const usable = candidates.filter(
    ({ manifest, refusal }) => manifest !== undefined && refusal === undefined,
  );
  const chosen = chooseCandidate(id, usable, candidates, plugins.length);
  const { packageName, entry, folder } = chosen.manifest!;
  const other = usable.find((each) => each.id !== chosen.id);
  const tested = { folder, entry, otherEntry: other?.manifest!.entry };
  return { load: () => loadBackendModule(packageName, entry), options: { ...options, package: tested } };
}

const isBackendFolder = (folder: string): boolean => {
  const file = resolve(folder, 'package.json');
  const tenon = existsSync(file) ? readJson(file)?.['tenon'] : undefined;
  return typeof tenon === 'object' && tenon !== null && 'backend' in tenon;
};

function chooseCandidate(
  id: string | undefined,
  usable: readonly Candidate[],
  all: readonly Candidate[],
  numNamed: number,
): Candidate {
  const named = usable.filter(({ source }) => source === 'option');
  const possible = id !== undefined ? usable.filter((each) => each.id === id) : numNamed > 0 ? named : usable;
  if (possible.length === 1) return possible[0]!;
  const states = all.map(
    (each) => `${each.id ?? each.name}${each.refusal ? ` (${each.refusal.reason})` : ''}`,
  );
  const found = states.join(', ') || 'none';
  const message =
    possible.length === 0
      ? `no backend ${id === undefined ? '' : `'${id}' `}can be loaded; found: ${found}; name its package or folder with --plugin`
      : `there are several backends: ${found}; choose one with --backend`;
  throw new TenonError('config.device-not-found', message, { param: 'backend' });
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

const invalid = (message: string): TenonError => new TenonError('config.invalid-option', message);
