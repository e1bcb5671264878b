/** All cases, by level. To add one: write its function in a file of its level's folder, and list it in that folder's index. */
import type { ConformanceCase } from '../case.js';
import { Random } from '../random.js';
import { packageLevel } from './l0-package/index.js';
import { memoryLevel } from './l1-memory/index.js';
import { opLevel } from './l2-ops/index.js';
import { programLevel } from './l3-programs/index.js';
import { servingLevel } from './l4-serving/index.js';
import { speedLevel } from './l5-speed/index.js';

const known = new Map<string, readonly ConformanceCase[]>();

/** The cases of a seed, with those of a folder of golden checkpoints, in the order in which they run. */
export function allCases(seed: number, goldens?: string): readonly ConformanceCase[] {
  const key = `${seed} ${goldens ?? ''}`;
  const cases = known.get(key) ?? makeCases(seed, goldens);
  known.set(key, cases);
  return cases;
}

function makeCases(seed: number, goldens: string | undefined): ConformanceCase[] {
  return [
    ...packageLevel(),
    ...memoryLevel(),
    ...opLevel(new Random(seed, 'L2')),
    ...programLevel(goldens),
    ...servingLevel(),
    ...speedLevel(),
  ];
}
