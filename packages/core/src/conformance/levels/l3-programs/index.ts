/** Level 3: whole programs. */
import type { ConformanceCase } from '../../case.js';
import { flightCases } from './flight.js';
import { goldenCases } from './goldens.js';
import { invariantCases } from './invariants.js';
import { parallelCases } from './parallel.js';
import { referenceCases } from './reference.js';

export function programLevel(goldens?: string): ConformanceCase[] {
  return [
    ...referenceCases(),
    ...invariantCases(),
    ...flightCases(),
    ...parallelCases(),
    ...goldenCases(goldens),
  ];
}
