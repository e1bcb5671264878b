/**
 * What JavaScript costs per step: microseconds to schedule and write a step, and to read its result and encode the
 * outputs, for decoding batches of growing size, with a backend that computes nothing. Ends with status 1 above the limits.
 * `npx tsx packages/core/scripts/bench-scheduler.ts`
 */
import { DrivenCore } from './driven-core.js';

const numRounds = 5;
const stepsPerRound = 80;
const numWarmUpSteps = 300;
/** Microseconds that a step of so many sequences may cost. */
const limits: ReadonlyMap<number, number> = new Map([
  [256, 1000],
  [1024, 2000],
]);

/** Microseconds per step with `numRunning` decoding and `numWaiting` queued sequences; the best of the rounds. */
async function measure(numRunning: number, numWaiting: number): Promise<number> {
  const core = new DrivenCore({ maxNumSeqs: numRunning, numBlocks: 200 * numRunning });
  for (let i = 0; i < numRunning + numWaiting; i++)
    core.add({ numPromptTokens: 512, maxTokens: 3000, family: i });
  await core.start();
  while (core.numLogitRows < numRunning) core.step();
  for (let i = 0; i < numWarmUpSteps; i++) core.step();
  let best = Infinity;
  for (let round = 0; round < numRounds; round++) {
    const start = performance.now();
    for (let i = 0; i < stepsPerRound; i++) core.step();
    best = Math.min(best, ((performance.now() - start) / stepsPerRound) * 1e3);
  }
  return best;
}

console.log('running  waiting   µs/step  ns/sequence');
for (const [running, waiting] of [
  [16, 0],
  [64, 0],
  [256, 0],
  [256, 4096],
  [1024, 0],
  [1024, 4096],
] as const) {
  const micros = await measure(running, waiting);
  if (micros > (limits.get(running) ?? Infinity)) process.exitCode = 1;
  const row = [running, waiting, micros.toFixed(1), ((micros * 1e3) / running).toFixed(0)];
  console.log(row.map((cell) => String(cell).padStart(8)).join(' '));
}
