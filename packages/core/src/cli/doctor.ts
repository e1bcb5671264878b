/** `tenon doctor` (`collect-env`): every plugin that is installed, its state, and why it cannot be used and what to do. */
import { arch, cpus, platform, release, totalmem } from 'node:os';

import type { Command } from 'commander';

import type { DeviceInfo } from '../backend/index.js';
import { listExtensions, type Extension } from '../plugins/extensions.js';
import type { BackendReport } from '../plugins/survey.js';
import { tenonVersion } from '../version.js';
import {
  gib,
  noBackends,
  packageOf,
  print,
  printJson,
  surveyAll,
  surveyCommand,
  type SurveyCommandOptions,
} from './survey-command.js';

export function doctorCommand(): Command {
  return surveyCommand('doctor', 'Show every plugin, its state, and why any cannot be used.').action(doctor);
}

async function doctor(options: SurveyCommandOptions): Promise<void> {
  const backends = await surveyAll(options);
  const extensions = listExtensions({ plugins: options.plugin, root: process.cwd(), env: process.env });
  if (options.json === true) {
    return printJson({ ...machine(), backends: backends.map(backendData), extensions });
  }
  const backendText = backends.length === 0 ? [noBackends] : backends.flatMap(backendLines);
  const extensionText = extensions.length === 0 ? [] : ['', ...extensions.flatMap(extensionLines)];
  print([...machineLines(), '', ...backendText, ...extensionText]);
}

function machine() {
  const processors = cpus();
  return {
    tenon: tenonVersion,
    node: process.version,
    system: `${platform()} ${release()} ${arch()}`,
    cpu: { model: processors[0]?.model.trim() ?? 'unknown', threads: processors.length },
    memoryBytes: totalmem(),
  };
}

function machineLines(): string[] {
  const { tenon, node, system, cpu, memoryBytes } = machine();
  return [
    `tenon    ${tenon}`,
    `node     ${node}`,
    `system   ${system}`,
    `CPU      ${cpu.model}, ${cpu.threads} threads`,
    `memory   ${gib(memoryBytes)}`,
  ];
}

function backendData({ manifest, info, ...report }: BackendReport) {
  return { ...report, entry: manifest?.entry, api: manifest?.api, runtime: info?.runtime };
}

function backendLines(report: BackendReport): string[] {
  const { id, source, state, reason, remedy, info, devices } = report;
  return [
    `${id ?? '?'}: ${packageOf(report)} (${source}): ${state}`,
    ...whyLines(reason, remedy),
    ...Object.entries(info?.runtime ?? {}).map(([key, value]) => `  ${key} ${value}`),
    ...devices.flatMap(deviceLines),
  ];
}

function deviceLines(device: DeviceInfo): string[] {
  const { id, name, usable, reason, remedy, freeBytes, memoryBytes, dtypes } = device;
  if (!usable) return [`  ${id}: ${name}: not usable`, ...whyLines(reason, remedy).map((line) => `  ${line}`)]; // prettier-ignore
  return [`  ${id}: ${name}, ${gib(freeBytes)} free of ${gib(memoryBytes)}, ${dtypes.join(', ')}`];
}

function extensionLines({ kind, name, packageName, packageVersion, source, state, problem }: Extension): string[] {
  const line = `${kind} ${name}: ${packageName} ${packageVersion} (${source}): ${state}`;
  return [line, ...whyLines(problem, undefined)];
} // prettier-ignore

function whyLines(reason: string | undefined, remedy: string | undefined): string[] {
  return [...(reason ? [`  reason: ${reason}`] : []), ...(remedy ? [`  remedy: ${remedy}`] : [])];
}
