/** What a case of the kit is, and the ways in which it ends. */
import type { OpName } from '../backend/index.js';
import type { Kit } from './kit.js';

export const levelNames = ['package', 'memory', 'ops', 'programs', 'serving', 'speed'] as const;
export type Level = 0 | 1 | 2 | 3 | 4 | 5;

export interface ConformanceCase {
  /** `L2/attention/…`: a level, what it is about, and the rest. */
  readonly name: string;
  /** The op that it is about. */
  readonly op?: OpName;
  /** Throws what `fail`, `skip` or `notApplicable` give; any other error is a failure too. */
  readonly run: (kit: Kit) => Promise<void>;
}

/** The element of a result that is the furthest off, in units of what was allowed. */
export interface WorstElement {
  /** What it is an element of: an op's output, the logits, … */
  readonly of: string;
  readonly row: number;
  readonly column: number;
  readonly got: number;
  readonly expected: number;
  readonly tolerance: number;
  /** Elements that are off by more than allowed, of how many. */
  readonly numWrong: number;
  readonly numElements: number;
}

export class CaseFailure extends Error {
  readonly op: OpName | undefined;
  readonly worst: WorstElement | undefined;

  constructor(message: string, details: { op?: OpName | undefined; worst?: WorstElement | undefined } = {}) {
    super(message);
    this.op = details.op;
    this.worst = details.worst;
  }
}

/** Why a case was not run: the backend says that it lacks what is needed (`skipped`), or it does not concern it. */
export class CaseSkip extends Error {
  readonly isApplicable: boolean;

  constructor(reason: string, isApplicable: boolean) {
    super(reason);
    this.isApplicable = isApplicable;
  }
}

export function fail(message: string, details: ConstructorParameters<typeof CaseFailure>[1] = {}): never {
  throw new CaseFailure(message, details);
}

export function skip(reason: string): never {
  throw new CaseSkip(reason, true);
}

export function notApplicable(reason: string): never {
  throw new CaseSkip(reason, false);
}

export function check(condition: unknown, message: string): asserts condition {
  if (!condition) fail(message);
}

export const levelOf = ({ name }: Pick<ConformanceCase, 'name'>): Level => Number(name[1]) as Level;
