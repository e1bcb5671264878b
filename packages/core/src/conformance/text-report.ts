/** A report for people: a line per level, what failed with the command that repeats it, what was not run and why, speeds. */
import { alignColumns } from '../align-columns.js';
import type { ConformanceReport } from './report.js';

const shownFailures = 25;

/** `options`: those of the command that choose the backend, for the commands in the report. */
export function textReport(report: ConformanceReport, options = `--backend ${report.backend.id}`): string {
  const { backend, device, core, api, seed, runtime } = report;
  const facts = Object.entries(runtime).map(([key, value]) => `${key} ${value}`);
  return [
    `${backend.id} ${backend.version} on ${[`${device.id} (${device.name})`, ...facts].join(', ')}`,
    `core ${core}, backend api ${api}, seed ${seed}`,
    '',
    ...levelLines(report),
    ...failureLines(report, options),
    ...notRunLines(report),
    ...speedLines(report),
    '',
    verdict(report),
  ].join('\n');
}

function levelLines({ levels }: ConformanceReport): string[] {
  const rows = levels.map(({ level, name, passed, failed, skipped, notApplicable, milliseconds }) => [
    `${level} ${name}`,
    ...[passed, failed, skipped, notApplicable].map(String),
    `${(milliseconds / 1000).toFixed(1)} s`,
  ]);
  return alignColumns([['level', 'passed', 'failed', 'skipped', 'n/a', 'time'], ...rows]);
}

function failureLines({ failures, seed }: ConformanceReport, options: string): string[] {
  const shown = failures
    .slice(0, shownFailures)
    .flatMap((failure) => [
      '',
      `FAILED ${failure.case}`,
      `  ${failure.message}`,
      `  to repeat it: tenon conform ${options} --case '${failure.case}' --seed ${seed}`,
    ]);
  const numMore = failures.length - shownFailures;
  if (numMore <= 0) return shown;
  const rest = [...countBy(failures.slice(shownFailures).map(groupOf))];
  return [
    ...shown,
    '',
    `and ${numMore} more: ${rest.map(([group, count]) => `${group} (${count})`).join(', ')}`,
  ];
}

/** `L2/linear/bf16/k=3` → `L2/linear/bf16`. */
const groupOf = (failure: { readonly case: string }): string => failure.case.split('/').slice(0, 3).join('/');

function countBy(names: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}

function notRunLines({ notRun }: ConformanceReport): string[] {
  if (notRun.length === 0) return [];
  const lines = notRun.map(({ reason, applicable, cases }) => {
    const which = cases.length === 1 ? cases[0]! : `${cases.length} cases (${cases[0]}, …)`;
    return `  ${applicable ? 'skipped' : 'n/a'}: ${which}: ${reason}`;
  });
  return ['', 'not run', ...lines];
}

function speedLines({ speeds }: ConformanceReport): string[] {
  if (speeds.length === 0) return [];
  const rows = speeds.map(({ op, shape, microseconds, gbPerSecond, gflops, fraction, of }) => [
    `  ${op}`,
    shape,
    `${microseconds.toFixed(1)} µs`,
    `${gbPerSecond.toPrecision(3)} GB/s`,
    `${gflops.toPrecision(3)} GFLOP/s`,
    `${Math.round(100 * fraction)} % of the ${of}`,
  ]);
  const note =
    'speeds of this machine as it was (copy bandwidth: add; linear rate: its best; what stays in caches may exceed both)';
  return ['', note, ...alignColumns(rows)];
}

function verdict({ level, complete, failures }: ConformanceReport): string {
  const failed = failures.length === 0 ? 'all cases that were run passed' : `${failures.length} cases failed`;
  if (!complete) return `${failed}; no level counts where cases were chosen`;
  return `${failed}; level reached: ${level < 0 ? 'none' : level}`;
}
