/** What a package's conformance.json says, as far as a choice between devices needs it. */
import { isObject, readJson } from './manifest.js';

export interface ConformanceSummary {
  /** The highest level that the backend has passed, with all below it; -1: none. */
  readonly level: number;
}

/** Undefined without a report of this backend that can be read: it is the package's word, and no reason to refuse the package. */
export function readConformance(path: string | undefined, id: string): ConformanceSummary | undefined {
  const report = path === undefined ? undefined : readJson(path);
  const level = report?.['level'];
  if (!isObject(report?.['backend']) || report['backend']['id'] !== id) return undefined;
  return typeof level === 'number' && Number.isInteger(level) ? { level } : undefined;
}
