/** Runs the cases one after another, each within its time, and tells what happened as it happens. */
import type { BackendModule, Host } from '../backend/index.js';
import {
  CaseFailure,
  CaseSkip,
  levelOf,
  type ConformanceCase,
  type Level,
  type WorstElement,
} from './case.js';
import { Kit, type PackageUnderTest } from './kit.js';
import { allCases } from './levels/index.js';
import { Random } from './random.js';
import { makeReport, type ConformanceReport, type TestedBackend } from './report.js';

export interface ConformanceOptions {
  /** Random numbers of all cases follow from it. Default: 1. */
  readonly seed?: number;
  /** Levels to run. Default: all. */
  readonly levels?: readonly Level[];
  /** Only cases of this op. */
  readonly op?: string;
  /** Only this case; with `*`, all whose names match. */
  readonly case?: string;
  /** Of the chosen cases, at most so many of each op and of each level's rest; the seed says which. */
  readonly sample?: number;
  /** A folder of golden checkpoints, besides those that come with the package: a folder each, with golden.json or exact.json. */
  readonly goldens?: string;
  /** The first usable one if absent. */
  readonly deviceId?: string;
  /** Where the backend was found: level 0 needs it. */
  readonly package?: PackageUnderTest;
  /** Default: 60. */
  readonly caseTimeoutSeconds?: number;
  readonly host?: Host;
  /** Cases to leave out at the beginning: those that another process has run. */
  readonly from?: number;
}

/** How a case ended. `not-applicable`: it does not concern this backend. */
export interface CaseResult {
  readonly name: string;
  readonly level: Level;
  readonly op: string | undefined;
  readonly outcome: 'passed' | 'failed' | 'skipped' | 'not-applicable';
  /** Why it failed or was not run. */
  readonly message: string | undefined;
  readonly worst: WorstElement | undefined;
  readonly milliseconds: number;
}

export type ConformanceEvent =
  | { readonly type: 'start'; readonly numCases: number; readonly tested: TestedBackend }
  | { readonly type: 'case-start'; readonly name: string; readonly index: number }
  | { readonly type: 'case-end'; readonly result: CaseResult; readonly index: number };

/** The cases that these options choose, in their order. */
export function listCases(options: ConformanceOptions = {}): ConformanceCase[] {
  const { seed = 1, levels, op, case: pattern, sample, goldens } = options;
  const matches = pattern === undefined ? () => true : matcher(pattern);
  const chosen = allCases(seed, goldens).filter(
    (each) =>
      (levels === undefined || levels.includes(levelOf(each))) &&
      (op === undefined || each.op === op) &&
      matches(each.name),
  );
  return sample === undefined ? chosen : sampled(chosen, sample, new Random(seed, 'sample'));
}

/** In their order. */
function sampled(cases: readonly ConformanceCase[], size: number, random: Random): ConformanceCase[] {
  const groups = new Map<string, ConformanceCase[]>();
  for (const each of cases) {
    const key = `${levelOf(each)} ${each.op ?? ''}`;
    groups.set(key, [...(groups.get(key) ?? []), each]);
  }
  const kept = new Set([...groups.values()].flatMap((group) => random.shuffled(group).slice(0, size)));
  return cases.filter((each) => kept.has(each));
}

function matcher(pattern: string): (name: string) => boolean {
  const escaped = pattern.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`));
  const expression = new RegExp(`^${escaped.join('.*')}$`);
  return (name) => expression.test(name);
}

/** Throws only where the backend has no usable device; what cases find is in the report. */
export async function runConformance(
  module: BackendModule,
  options: ConformanceOptions = {},
  onEvent: (event: ConformanceEvent) => void = () => {},
): Promise<ConformanceReport> {
  const { seed = 1, deviceId, host, caseTimeoutSeconds = 60 } = options;
  const cases = listCases(options);
  const { from = 0 } = options;
  const kit = await Kit.create(module, { seed, deviceId, package: options.package, ...(host && { host }) });
  const { backend, device } = kit;
  onEvent({ type: 'start', numCases: cases.length, tested: { info: backend.info, device } });
  const results: CaseResult[] = [];
  try {
    for (const [index, each] of cases.entries()) {
      if (index < from) continue;
      onEvent({ type: 'case-start', name: each.name, index });
      const result = await runCase(kit, each, 1000 * caseTimeoutSeconds);
      results.push(result);
      onEvent({ type: 'case-end', result, index });
    }
    return makeReport({ info: backend.info, device }, options, results, kit.speeds);
  } finally {
    await kit.close();
  }
}

async function runCase(kit: Kit, each: ConformanceCase, timeoutMs: number): Promise<CaseResult> {
  kit.caseName = each.name;
  const begin = performance.now();
  const ended = await settle(each.run(kit), timeoutMs);
  if (ended.outcome === 'failed') await kit.dropGroup();
  const milliseconds = Math.round(performance.now() - begin);
  return { name: each.name, level: levelOf(each), milliseconds, ...ended, op: ended.op ?? each.op };
}

type Ended = Pick<CaseResult, 'outcome' | 'message' | 'worst' | 'op'>;

async function settle(running: Promise<void>, timeoutMs: number): Promise<Ended> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new CaseFailure(`did not end within ${timeoutMs / 1000} s`)), timeoutMs);
  });
  try {
    await Promise.race([running, timeout]);
    return { outcome: 'passed', message: undefined, worst: undefined, op: undefined };
  } catch (error) {
    return describeEnd(error);
  } finally {
    clearTimeout(timer);
  }
}

function describeEnd(error: unknown): Ended {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof CaseSkip)
    return {
      outcome: error.isApplicable ? 'skipped' : 'not-applicable',
      message,
      worst: undefined,
      op: undefined,
    };
  const { worst, op } = error instanceof CaseFailure ? error : { worst: undefined, op: undefined };
  const code = error instanceof Error && 'code' in error ? `${String(error.code)}: ` : '';
  return { outcome: 'failed', message: code + message, worst, op };
}
