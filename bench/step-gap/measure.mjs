/**
 * How long a device waits between steps: a device that computes nothing, but takes the time of an H200 (native/timed_session.h), under the
 * whole engine. Ends with status 1 above the bars.
 * `node bench/step-gap/measure.mjs [case…]`, after `npm run build`; needs cmake and a C++ compiler.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeModel } from './write-model.mjs';

const small = {}; // the costs of 0.6B are the defaults
const large = { step: 3900, row: 8, prompt_token: 24, kv_token: 0.031 };
/** Bars: microseconds that decode steps of the largest batch may wait on average, or percent of all of a run's device time. */
const cases = [
  { name: '0.6B × 1', costs: small, work: { batch: 1, outputs: 512 }, maxIdleMicros: 30 },
  { name: '0.6B × 32', costs: small, work: { batch: 32, outputs: 256 }, maxIdlePercent: 2 },
  { name: '0.6B × 256', costs: small, work: { batch: 256, outputs: 200 }, maxIdlePercent: 2 },
  {
    name: '0.6B × 512',
    costs: small,
    maxNumSeqs: 512,
    work: { batch: 512, outputs: 100 },
    maxIdlePercent: 2,
  },
  { name: '8B × 1', costs: large, work: { batch: 1, outputs: 200 }, maxIdleMicros: 30 },
  { name: '8B × 256', costs: large, work: { batch: 256, outputs: 100 }, maxIdlePercent: 2 },
  { name: '0.6B, 512 requests', costs: small, maxNumSeqs: 512, work: { batch: 512 }, maxIdlePercent: 2 },
  {
    name: '0.6B, 256 requests, 2048 shared',
    costs: small,
    maxNumSeqs: 512,
    work: { batch: 256, outputs: 64, shared: 2048 },
    maxIdlePercent: 2,
  },
  {
    name: '0.6B, 512 requests, 256 at once',
    costs: small,
    maxNumSeqs: 256,
    work: { batch: 512 },
    maxIdlePercent: 2,
  },
];

const folder = import.meta.dirname;
const asked = process.argv.slice(2);
execFileSync(
  'cmake',
  ['-S', join(folder, 'native'), '-B', join(folder, 'native/build'), '-DCMAKE_BUILD_TYPE=Release'],
  { stdio: 'ignore' },
);
execFileSync('cmake', ['--build', join(folder, 'native/build')], { stdio: 'ignore' });
const model = mkdtempSync(join(tmpdir(), 'tenon-step-gap-'));
try {
  writeModel(model);
  console.log(
    'case                              steps  device ms/step  idle µs/step   p99 µs   idle %  CPU µs/step  first time: idle ms',
  );
  for (const one of cases) if (asked.length === 0 || asked.includes(one.name)) measure(one);
} finally {
  rmSync(model, { recursive: true });
}

function measure({ name, costs, maxIdleMicros = Infinity, maxIdlePercent = Infinity, ...rest }) {
  const TENON_TIMED_COSTS = Object.entries(costs).map(([key, value]) => `${key}=${value}`).join(','); // prettier-ignore
  const env = { ...process.env, TENON_TIMED_COSTS };
  const args = [join(folder, 'run-case.mjs'), model, JSON.stringify(rest)];
  const { cold, warm } = JSON.parse(execFileSync(process.execPath, args, { env, maxBuffer: 1 << 28 }).toString().split('\n').findLast((line) => line.startsWith('{'))); // prettier-ignore
  const { steps, cpuMicros } = warm ?? cold;
  const most = Math.max(...steps.map(({ numSeqs }) => numSeqs));
  const counted =
    warm === undefined ? steps : steps.filter(({ isDecode, numSeqs }) => isDecode && numSeqs === most);
  const idle = sum(counted, 'idleMicros');
  const compute = sum(counted, 'computeMicros');
  const perStep = idle / counted.length;
  const percent = (100 * idle) / (idle + compute);
  const p99 = counted.map(({ idleMicros }) => idleMicros).toSorted((a, b) => a - b)[
    Math.floor(0.99 * counted.length)
  ];
  const cells = [String(steps.length).padStart(6), ((compute / counted.length) / 1e3).toFixed(2).padStart(15), perStep.toFixed(1).padStart(13),
    String(p99).padStart(8), percent.toFixed(2).padStart(8), (cpuMicros / steps.length).toFixed(0).padStart(12), (sum(cold.steps, 'idleMicros') / 1e3).toFixed(1).padStart(20)]; // prettier-ignore
  console.log(name.padEnd(33) + cells.join(' '));
  if (perStep > maxIdleMicros || percent > maxIdlePercent) process.exitCode = 1;
}

function sum(steps, field) {
  return steps.reduce((total, step) => total + step[field], 0);
}
