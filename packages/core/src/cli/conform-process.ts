/**
 * Runs the conformance kit in a process of its own: a backend that crashes ends that one, the case that ran has failed, and the
 * next process goes on behind it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

import {
  makeReport,
  type CaseResult,
  type ConformanceCase,
  type ConformanceEvent,
  type ConformanceOptions,
  type ConformanceReport,
  type KernelSpeed,
  type TestedBackend,
} from '../conformance/index.js';
import { TenonError } from '../errors.js';
import type { CaseProgress } from './progress.js';

/** What the process that runs cases says. */
export type ChildMessage = { readonly event: ConformanceEvent } | { readonly speeds: readonly KernelSpeed[] };

/** A case that has not ended by then, though its own time is shorter, holds up the whole process: it is ended. */
const silenceMs = 120_000;

/** What is known so far, of all processes. */
interface Findings {
  tested: TestedBackend | undefined;
  readonly results: CaseResult[];
  readonly speeds: KernelSpeed[];
  isDone: boolean;
}

export async function superviseCases(
  options: ConformanceOptions,
  cases: readonly ConformanceCase[],
  progress: CaseProgress,
): Promise<ConformanceReport> {
  const findings: Findings = { tested: undefined, results: [], speeds: [], isDone: false };
  while (!findings.isDone) {
    const end = await runChild(findings, progress);
    if (findings.isDone) break;
    if (findings.tested === undefined) throw new TenonError('backend.load-failed', `the backend ${end}`);
    recordCrash(findings, cases, end);
    progress.end(true);
    if (findings.results.length === cases.length) break;
  }
  return makeReport(findings.tested!, options, findings.results, findings.speeds);
}

/** Runs this command again, behind the cases that have results. Resolves with how the process ended. */
async function runChild(findings: Findings, progress: CaseProgress): Promise<string> {
  const args = [...process.argv.slice(1), '--from', String(findings.results.length)];
  const child = spawn(process.execPath, args, {
    // what a backend prints is not part of the report
    stdio: ['ignore', 2, 2, 'ipc'],
    serialization: 'advanced',
  });
  let timer = setTimeout(() => child.kill('SIGKILL'), silenceMs);
  child.on('message', (message: ChildMessage) => {
    clearTimeout(timer);
    timer = setTimeout(() => child.kill('SIGKILL'), silenceMs);
    take(message, findings, progress);
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  clearTimeout(timer);
  return signal === null ? `ended the process with exit code ${code}` : `was ended by ${signal}`;
}

function take(message: ChildMessage, findings: Findings, progress: CaseProgress): void {
  if ('speeds' in message) {
    findings.speeds.push(...message.speeds);
    findings.isDone = true;
    return;
  }
  const { event } = message;
  if (event.type === 'start') findings.tested = event.tested;
  if (event.type === 'case-start') progress.show(event.name);
  if (event.type !== 'case-end') return;
  findings.results.push(event.result);
  progress.end(event.result.outcome === 'failed');
}

/** The case that ran, or where all have ended, the last one: it has left something behind. */
function recordCrash({ results }: Findings, cases: readonly ConformanceCase[], end: string): void {
  const isOver = results.length === cases.length;
  const { name, op } = isOver ? cases.at(-1)! : cases[results.length]!;
  if (isOver) results.pop();
  results.push({
    name,
    op,
    level: Number(name[1]) as CaseResult['level'],
    outcome: 'failed',
    message: isOver ? `after this last case, the backend ${end}` : `the backend ${end}`,
    worst: undefined,
    milliseconds: 0,
  });
}
