/** Level 2: every op of the table, one at a time. */
import type { ConformanceCase } from '../../case.js';
import type { Random } from '../../random.js';
import { attentionCases } from './attention.js';
import { claimCases } from './claims.js';
import { collectiveCases } from './collectives.js';
import { addCases, gatedActCases } from './elementwise.js';
import { embeddingCases } from './embedding.js';
import { gatherRowsCases } from './gather-rows.js';
import { linearCases } from './linear.js';
import { qkvCases } from './qkv.js';
import { rmsNormCases } from './rms-norm.js';
import { ropeCases, ropeCosSinCases } from './rope.js';
import { sampleCases } from './sample.js';

/** Feeds of other ops' programs come first. */
export function opLevel(random: Random): ConformanceCase[] {
  return [
    ...claimCases(),
    ...embeddingCases(random),
    ...addCases(random),
    ...gatherRowsCases(random),
    ...rmsNormCases(random),
    ...linearCases(random),
    ...gatedActCases(random),
    ...ropeCosSinCases(random),
    ...ropeCases(random),
    ...attentionCases(random),
    ...qkvCases(random),
    ...sampleCases(),
    ...collectiveCases(),
  ];
}
