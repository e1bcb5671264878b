/** `conformance.json`: what was found, for discovery (`level`), for a backend's authors, and for its README. */
import { arch, cpus, platform, totalmem } from 'node:os';
import type { BackendInfo, DeviceInfo } from '../backend/index.js';
import { backendApi } from '../plugins/backend-api.js';
import { tenonVersion } from '../version.js';
import { levelNames, type Level, type WorstElement } from './case.js';
import type { KernelSpeed } from './kit.js';
import type { CaseResult, ConformanceOptions } from './run-conformance.js';

export const reportSchema = 1;

export interface LevelSummary {
  readonly level: Level;
  readonly name: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly notApplicable: number;
  readonly milliseconds: number;
}

export interface ConformanceReport {
  readonly schema: typeof reportSchema;
  readonly backend: { readonly id: string; readonly owner: string; readonly version: string };
  readonly runtime: Readonly<Record<string, string>>;
  readonly device: { readonly id: string; readonly name: string; readonly class: string };
  readonly core: string;
  /** Version of the backend contract. */
  readonly api: string;
  readonly seed: number;
  /** The highest level which passed with all below it; -1: none. Levels that were not run, or run in part, do not count. */
  readonly level: number;
  /** Whether no case was left out by `--op`, `--case` or `--sample`. */
  readonly complete: boolean;
  readonly machine: {
    readonly platform: string;
    readonly cpu: string;
    readonly threads: number;
    readonly memoryBytes: number;
    readonly node: string;
  };
  readonly levels: readonly LevelSummary[];
  readonly failures: readonly {
    readonly case: string;
    readonly op: string | undefined;
    readonly message: string;
    readonly worst: WorstElement | undefined;
  }[];
  /** Cases that were not run, by reason. */
  readonly notRun: readonly {
    readonly reason: string;
    readonly applicable: boolean;
    readonly cases: readonly string[];
  }[];
  /** Rough: of this machine at this time. */
  readonly speeds: readonly KernelSpeed[];
}

export interface TestedBackend {
  readonly info: BackendInfo;
  readonly device: DeviceInfo;
}

export function makeReport(
  { info, device }: TestedBackend,
  options: ConformanceOptions,
  results: readonly CaseResult[],
  speeds: readonly KernelSpeed[],
): ConformanceReport {
  const { id, owner, version, runtime } = info;
  const complete = [options.op, options.case, options.sample].every((option) => option === undefined);
  const levels = summarize(results);
  return {
    schema: reportSchema,
    backend: { id, owner, version },
    runtime,
    device: { id: device.id, name: device.name, class: device.class },
    core: tenonVersion,
    api: `${backendApi.major}.${backendApi.minor}`,
    seed: options.seed ?? 1,
    level: complete ? reachedLevel(levels) : -1,
    complete,
    machine: {
      platform: `${platform()}-${arch()}`,
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      threads: cpus().length,
      memoryBytes: totalmem(),
      node: process.version,
    },
    levels,
    failures: results.flatMap(({ name, op, outcome, message, worst }) =>
      outcome === 'failed' ? [{ case: name, op, message: message ?? '', worst }] : [],
    ),
    notRun: groupByReason(results),
    speeds,
  };
}

function summarize(results: readonly CaseResult[]): LevelSummary[] {
  return levelNames.flatMap((name, level) => {
    const own = results.filter((result) => result.level === level);
    const count = (outcome: CaseResult['outcome']): number =>
      own.filter((result) => result.outcome === outcome).length;
    if (own.length === 0) return [];
    const milliseconds = own.reduce((sum, result) => sum + result.milliseconds, 0);
    const counts = { passed: count('passed'), failed: count('failed'), skipped: count('skipped') };
    return [{ level: level as Level, name, ...counts, notApplicable: count('not-applicable'), milliseconds }];
  });
}

/** Level 5 measures; what comes before it has to pass. */
function reachedLevel(levels: readonly LevelSummary[]): number {
  let reached = -1;
  for (const { level, passed, failed } of levels) {
    if (level !== reached + 1 || failed > 0 || passed === 0) break;
    reached = level;
  }
  return reached;
}

function groupByReason(results: readonly CaseResult[]): ConformanceReport['notRun'] {
  const groups = new Map<string, { reason: string; applicable: boolean; cases: string[] }>();
  for (const { name, outcome, message = '' } of results) {
    if (outcome !== 'skipped' && outcome !== 'not-applicable') continue;
    const key = `${outcome} ${message}`;
    const group = groups.get(key) ?? { reason: message, applicable: outcome === 'skipped', cases: [] };
    group.cases.push(name);
    groups.set(key, group);
  }
  return [...groups.values()];
}
