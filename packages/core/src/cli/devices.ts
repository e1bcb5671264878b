/** `tenon devices`: the devices that there are, and those that cannot be used. */
import type { Command } from 'commander';

import { alignColumns } from '../align-columns.js';
import type { DeviceInfo } from '../backend/index.js';
import type { BackendReport } from '../plugins/survey.js';
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

export function devicesCommand(): Command {
  return surveyCommand('devices', 'Show the devices, and which of them can be used.').action(devices);
}

async function devices(options: SurveyCommandOptions): Promise<void> {
  const reports = await surveyAll(options);
  const rows = reports.flatMap((report) => report.devices.map((device) => ({ report, device })));
  const failed = reports.filter((report) => report.devices.length === 0);
  if (options.json === true) {
    return printJson({
      devices: rows.map(({ report, device }) => ({ ...device, backend: report.id, package: report.name })),
      backends: failed.map(({ name, id, state, reason, remedy }) => ({ name, id, state, reason, remedy })),
    });
  }
  const table = rows.length === 0 ? [] : alignColumns([header, ...rows.map(tableRow)]);
  const lines = [...table, ...failed.map(failedLine)];
  print(lines.length === 0 ? [noBackends] : lines);
}

const header = ['device', 'usable', 'class', 'name', 'free', 'memory', 'types', 'package', ''];

function tableRow({ report, device }: { report: BackendReport; device: DeviceInfo }): string[] {
  const { id, usable, class: deviceClass, name, freeBytes, memoryBytes, dtypes, reason, remedy } = device;
  const facts = usable ? [gib(freeBytes), gib(memoryBytes), dtypes.join(' ')] : ['', '', ''];
  const why = usable ? '' : [reason, remedy].filter(Boolean).join('; ');
  return [id, usable ? 'yes' : 'no', deviceClass, name, ...facts, packageOf(report), why];
}

function failedLine(report: BackendReport): string {
  const { id, state, reason, remedy } = report;
  return `${id ?? '?'}: ${packageOf(report)}: ${state}: ${[reason, remedy].filter(Boolean).join('; ')}`;
}
