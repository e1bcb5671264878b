/** Level 1: memory. */
import type { ConformanceCase } from '../../case.js';
import { guardCases } from './guards.js';
import { kvSlotCases } from './kv-slots.js';
import { leakCases } from './leaks.js';
import { sizeCases } from './sizes.js';

export function memoryLevel(): ConformanceCase[] {
  return [...sizeCases(), ...guardCases(), ...kvSlotCases(), ...leakCases()];
}
