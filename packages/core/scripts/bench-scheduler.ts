/**
 * What JavaScript costs per step: microseconds to schedule and write a step, and to read its result and encode the
 * outputs, for decoding batches of growing size, with a backend that computes nothing. `tsx scripts/bench-scheduler.ts`
 */
import { resultHeaderWords, rowMode, stepHeader, stepRegionNames } from '../src/backend/index.js';
import { EngineCore } from '../src/engine/engine-core.js';
import { buildSamplerRow } from '../src/sampling/sampler-row.js';
import { samplingDefaults } from '../src/sampling/resolve-sampling-params.js';

const numSteps = 400;
const sampler = buildSamplerRow(samplingDefaults, {
  suppressTokens: [],
  badWords: new Int32Array(0),
  processedLogprobs: false,
});
const numLogitRowsWord = stepHeader.indexOf('numLogitRows');
const rowModesWord = stepHeader.length + stepRegionNames.indexOf('rowModes');

/** Microseconds per step with `numRunning` decoding and `numWaiting` queued sequences. */
function measure(numRunning: number, numWaiting: number): Promise<number> {
  let queued: { step: Int32Array; result: Int32Array } | undefined;
  const executable = {
    run(step: Int32Array, result: Int32Array): void {
      queued = { step, result };
    },
  };
  const core = new EngineCore(
    {
      scheduler: {
        maxNumSeqs: numRunning,
        maxNumBatchedTokens: 8192,
        maxPromptTokensBesideDecodes: Infinity,
        enableChunkedPrefill: true,
        longPrefillTokenThreshold: 0,
        mixedPrefillDecode: true,
        maxResultWords: 1 << 24,
      },
      numBlocks: 200 * numRunning,
      blockSize: 16,
      watermarkBlocks: 0,
      maxModelLen: 4096,
      enablePrefixCaching: true,
      sharedPromptLength: Infinity,
      stepsInFlight: 1,
      tokenBuckets: [],
    },
    executable,
    () => {},
  );
  for (let i = 0; i < numRunning + numWaiting; i++) {
    const promptTokenIds = Int32Array.from({ length: 512 }, (_, k) => (k * 31 + i * 7) % 32_000);
    core.receive({
      type: 'add',
      request: {
        firstSequenceId: i,
        promptTokenIds,
        seed: 1n,
        n: 1,
        sampler,
        maxTokens: 3000,
        stopTokenIds: [2],
        priority: 0,
        cacheSalt: undefined,
      },
    });
  }
  const step = (stepId: number): void => {
    const { step, result } = queued!;
    const numRows = step[numLogitRowsWord]!;
    const modesAt = step[rowModesWord]!;
    for (let row = 0; row < numRows; row++) {
      result[resultHeaderWords + row] =
        (step[modesAt + row]! & rowMode.sample) !== 0 ? 100 + (stepId % 1000) : -1;
    }
    core.stepDone(stepId);
  };
  return new Promise((resolve) => {
    setImmediate(() => {
      let stepId = 0;
      while (queued!.step[numLogitRowsWord]! < numRunning) step(++stepId);
      for (let i = 0; i < 300; i++) step(++stepId);
      let best = Infinity;
      for (let round = 0; round < 5; round++) {
        const start = performance.now();
        for (let i = 0; i < numSteps / 5; i++) step(++stepId);
        best = Math.min(best, ((performance.now() - start) / (numSteps / 5)) * 1e3);
      }
      resolve(best);
    });
  });
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
  const row = [running, waiting, micros.toFixed(1), ((micros * 1e3) / running).toFixed(0)];
  console.log(row.map((cell) => String(cell).padStart(8)).join(' '));
}
