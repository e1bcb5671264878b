/** Small programs, of one op or few, run on a backend: their outputs are read from the step's result. */
import type { BackendModule, Dtype, WeightSource } from '../../src/backend/index.js';
import { GraphBuilder, planProgram, type Value } from '../../src/conformance/index.js';
import { PlainRunner, type PlainSequence } from './plain-step.js';

const blockSize = 16;

/** Records `build`'s value as the result's output and runs steps on it; weights by name. */
export async function openProgram(
  module: BackendModule,
  dtype: Dtype,
  weights: Readonly<Record<string, readonly number[]>>,
  build: (g: GraphBuilder) => Value,
): Promise<{
  run: (sequences: readonly PlainSequence[], outputWords: number) => Promise<Int32Array>;
  close: () => Promise<void>;
}> {
  const g = new GraphBuilder(dtype);
  g.output(build(g));
  const group = await openOnly(module);
  const limits = {
    maxTokens: 64, maxSeqs: 4, maxLogitRows: 64, maxModelLen: 64, blockSize, numBlocks: 16, vocabSize: 64,
  }; // prettier-ignore
  const { plan } = await planProgram(g.finish(), group, limits);
  const runner = new PlainRunner();
  runner.executable = await group.load(plan, sourceOf(weights), { onStepDone: runner.onStepDone });
  let stepId = 0;
  return {
    run: async (sequences, outputWords) =>
      (await runner.run({ stepId: stepId++, blockSize, sequences }, outputWords)).outputs,
    close: async () => {
      await runner.executable.close();
      await group.close();
    },
  };
}

async function openOnly(module: BackendModule): ReturnType<ReturnType<BackendModule['create']>['open']> {
  const backend = module.create({ log: () => {} });
  const [device] = await backend.devices();
  return backend.open([device!.id], {});
}

function sourceOf(weights: Readonly<Record<string, readonly number[]>>): WeightSource {
  const locations = Object.entries(weights).map(([name, values]) => {
    const sizeBytes = 4 * values.length;
    return [name, { name, file: '', offset: 0, sizeBytes, dtype: 'F32', shape: [values.length] }] as const;
  });
  return {
    locations: new Map(locations),
    read: async (name) => Float32Array.from(weights[name]!),
  };
}
