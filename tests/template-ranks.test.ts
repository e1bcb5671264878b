/** The template's devices compute together, and do not wait for ever for one that does not come. */
import { randomUUID } from 'node:crypto';
import {
  resultHeaderWords, stepHeader, stepHeaderWords, stepMagic, stepRegionNames, stepVersion, type Backend, type BackendFailure,
  type BackendModule, type Executable, type Plan,
} from '@tenon/core/backend'; // prettier-ignore
import { afterEach, expect, it } from 'vitest';

const numTokens = 8;
const columns = 4;

/** y = Σ over the ranks of the cosines and sines of two angles per token, [T, columns]. */
const plan: Plan = {
  weights: [{ name: 'invFreq', parts: [], shape: [2], dtype: 'f32', uses: ['vector'], data: Float32Array.of(1, 0.5) }], // prettier-ignore
  tensors: [
    { kind: 'input', dtype: 'i32', dims: ['T'], input: 'positions' },
    { kind: 'weight', dtype: 'f32', dims: [2], weight: 0 },
    { kind: 'buffer', dtype: 'f32', dims: ['T', columns], offset: 0 },
    { kind: 'output', dtype: 'f32', dims: ['T', columns] },
  ],
  ops: [
    { op: 'rope_cos_sin', inputs: [0, 1], outputs: [2], attrs: { rotaryDim: columns, scale: 1 } },
    { op: 'all_reduce', inputs: [2], outputs: [3], attrs: {} },
  ],
  segments: [{ firstOp: 0, numOps: 2 }],
  kvLayers: [],
  limits: { maxTokens: numTokens, maxSeqs: 1, maxLogitRows: 1, maxModelLen: 100, blockSize: 16, numBlocks: 0, vocabSize: 1 }, // prettier-ignore
  arenaBytes: numTokens * columns * 4,
};

/** A step of tokens of no sequence, at positions first, first + 1, … */
function makeStep(first: number): Int32Array {
  const step = new Int32Array(stepHeaderWords + 3 * numTokens);
  const header: Record<string, number> = { magic: stepMagic, version: stepVersion, stepId: 1, numTokens, sizeWords: step.length }; // prettier-ignore
  stepHeader.forEach((field, i) => (step[i] = header[field] ?? 0));
  ['tokenIds', 'positions', 'slotMapping'].forEach((region, i) => {
    step[stepHeader.length + stepRegionNames.indexOf(region as 'positions')] =
      stepHeaderWords + i * numTokens;
  });
  for (let t = 0; t < numTokens; t++) step[stepHeaderWords + numTokens + t] = first + t;
  step.fill(-1, stepHeaderWords + 2 * numTokens);
  return step;
}

const template = async (): Promise<Backend> => {
  const entry = new URL('../plugins-template/index.js', import.meta.url).href;
  return ((await import(entry)) as { default: BackendModule }).default.create({ log: () => {} });
};

/** Runs one step as a rank of a group of two. */
async function runRank(backend: Backend, rank: number, groupId: string): Promise<Float32Array> {
  const group = await backend.open([`template:${rank}`], { parallel: { rank, size: 2, groupId } });
  const result = new Int32Array(resultHeaderWords + numTokens * columns);
  let executable: Executable | undefined;
  const failure = await new Promise<BackendFailure | undefined>((resolve, reject) => {
    const options = { onStepDone: (_: number, error?: BackendFailure) => resolve(error) };
    group.load(plan, { locations: new Map(), read: async () => new Float32Array() }, options).then((loaded) => {
      executable = loaded;
      loaded.run(makeStep(10 * rank), result);
    }, reject); // prettier-ignore
  });
  await executable?.close();
  await group.close();
  if (failure !== undefined) throw Object.assign(new Error(failure.message), { code: failure.code });
  return new Float32Array(result.buffer, 4 * resultHeaderWords);
}

afterEach(() => {
  delete process.env['TENON_SIM_COLLECTIVE_TIMEOUT_MS'];
});

it('two devices add what each has, in the same order', async () => {
  const backend = await template();
  const groupId = randomUUID();
  const [first, second] = await Promise.all([0, 1].map((rank) => runRank(backend, rank, groupId)));
  expect(second).toEqual(first);
  for (let t = 0; t < numTokens; t++) {
    const expected = [Math.cos, Math.sin].flatMap((f) => [1, 0.5].map((w) => f(t * w) + f((10 + t) * w)));
    for (const [i, value] of expected.entries()) expect(first![t * columns + i]).toBeCloseTo(value, 5);
  }
});

it('a rank whose partner does not come is lost after its time', async () => {
  process.env['TENON_SIM_COLLECTIVE_TIMEOUT_MS'] = '200';
  const alone = runRank(await template(), 0, randomUUID());
  await expect(alone).rejects.toMatchObject({
    code: 'backend.device-lost',
    message: 'rank 0 waited 200 ms in a collective; 1 of 2 ranks came',
  });
});
