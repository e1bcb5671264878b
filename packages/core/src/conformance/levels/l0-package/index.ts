/** Level 0: the package and what it says about itself. */
import type { ConformanceCase } from '../../case.js';
import { backendCases } from './backend.js';
import { packageCases } from './package.js';

export function packageLevel(): ConformanceCase[] {
  return [...packageCases(), ...backendCases()];
}
