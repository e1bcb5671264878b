/** What a finding is: an error without a name of ours, one that blames us, a case that takes too long, a number that is none. */
import { errorCodes, TenonError } from '../../packages/core/src/errors.js';

/** A case must end within it. */
const maxCaseMs = 1000;

/** Runs a case; its result, or undefined where it was refused by a proper error. */
export function runCase<T>(work: () => T): T | undefined {
  const start = performance.now();
  try {
    return work();
  } catch (error) {
    requireNamed(error);
    return undefined;
  } finally {
    requireFast(start);
  }
}

export async function runCaseAsync<T>(work: () => Promise<T>): Promise<T | undefined> {
  const start = performance.now();
  try {
    return await work();
  } catch (error) {
    requireNamed(error);
    return undefined;
  } finally {
    requireFast(start);
  }
}

export function requireNamed(error: unknown): void {
  if (error instanceof TenonError && errorCodes[error.code] !== 'internal') return;
  throw new Error(`a finding: ${String(error)}`, { cause: error });
}

function requireFast(start: number): void {
  const ms = performance.now() - start;
  if (ms > maxCaseMs) throw new Error(`a finding: the case took ${Math.round(ms)} ms`);
}

/** No NaN and no infinity anywhere in what a parser gives. */
export function requireFinite(value: unknown, path = ''): void {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new Error(`a finding: ${path} is ${value}`);
  if (typeof value !== 'object' || value === null) return;
  for (const [name, member] of Object.entries(value)) requireFinite(member, `${path}.${name}`);
}

export function require(condition: boolean, what: string): void {
  if (!condition) throw new Error(`a finding: ${what}`);
}
