/** What `tenon doctor` and `tenon devices` share: their options, and the look at all that is installed. */
import { Command } from 'commander';

import { surveyBackends, type BackendReport } from '../plugins/survey.js';

export interface SurveyCommandOptions {
  readonly plugin: readonly string[];
  readonly json?: boolean;
}

/** A person is waiting: less than a start allows. TENON_PROBE_TIMEOUT has the last word. */
const timeoutMs = 1500;

export function surveyCommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .option('--plugin <words...>', 'packages or folders with further plugins', [])
    .option('--json', 'print JSON')
    .addHelpText('after', '\nTENON_PROBE_TIMEOUT: seconds that a backend may take (1.5).');
}

/** Also sets the exit status: 1 where no device can be used. */
export async function surveyAll({ plugin }: SurveyCommandOptions): Promise<readonly BackendReport[]> {
  const reports = await surveyBackends({
    plugins: plugin,
    device: 'auto',
    root: process.cwd(),
    env: process.env,
    timeoutMs,
  });
  if (reports.every(({ state }) => state !== 'ok')) process.exitCode = 1;
  return reports;
}

export function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

export const noBackends = 'no backends found; install @tenon/backend-cpu';

/** `my-backend 1.2.3`. */
export const packageOf = ({ name, version }: Pick<BackendReport, 'name' | 'version'>): string =>
  version === undefined ? name : `${name} ${version}`;

export const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
