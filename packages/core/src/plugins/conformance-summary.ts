/** What a package's conformance.json says, as far as a choice between devices needs it. */
import { isObject, readJson } from './manifest.js';

export interface ConformanceSummary {
  /** The highest level that the backend has passed, with all below it; -1: none. */
  readonly level: number;
}

/**
 * Undefined without a report that can be read: it is its package's word, and no reason to refuse the package. Levels without a failure
 * count up to the first that has one, is missing, or has not run.
 */
export function readConformance(path: string | undefined): ConformanceSummary | undefined {
  const levels = path === undefined ? undefined : readJson(path)?.['levels'];
  if (!Array.isArray(levels)) return undefined;
  let level = -1;
  while (levels.some((entry) => hasPassed(entry, level + 1))) level++;
  return { level };
}

/** `{ "level": 2, "passed": 312, "failed": 0 }`. */
function hasPassed(entry: unknown, level: number): boolean {
  if (!isObject(entry) || entry['level'] !== level) return false;
  return typeof entry['passed'] === 'number' && entry['passed'] > 0 && entry['failed'] === 0;
}
