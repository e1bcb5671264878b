/** The conformance kit on the CPU backend, as `tenon conform` runs it: package, memory, ops, programs, serving. */
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import backend from '../src/index.js';
import { runConformance, textReport } from '../../core/src/conformance/index.js';

const folder = fileURLToPath(new URL('..', import.meta.url));

it('conforms at levels 0 to 4', async () => {
  const report = await runConformance(backend, {
    levels: [0, 1, 2, 3, 4],
    package: { folder, entry: `${folder}dist/index.js` },
  });
  expect(report.failures, textReport(report)).toEqual([]);
  expect(report.level).toBe(4);
  // every op but the collectives has native kernels for all that is asked
  expect(report.notRun.filter(({ applicable }) => applicable)).toEqual([]);
}, 120_000);
