/** The reference and the null backend through the contract: small programs, the sampler's state, failures, order of steps. */
import { describe, expect, it } from 'vitest';
import {
  resultHeaderWords, resultWords, rowMode, type BackendFailure, type BackendModule, type Executable,
} from '../../src/backend/index.js'; // prettier-ignore
import {
  GraphBuilder,
  createNullBackend,
  planProgram,
  referenceBackend,
  uniform,
} from '../../src/conformance/index.js';
import { encodeStep, PlainRunner, type PlainRow, type PlainSequence } from '../support/plain-step.js';
import { openProgram } from '../support/small-program.js';

const blockSize = 16;
const limits = {
  maxTokens: 64,
  maxSeqs: 4,
  maxLogitRows: 64,
  maxModelLen: 64,
  blockSize,
  numBlocks: 16,
  vocabSize: 8,
};
const identity = Array.from({ length: 64 }, (_, i) => (i % 9 === 0 ? 1 : 0));

const sequence = (tokens: readonly number[], changes: Partial<PlainSequence> = {}): PlainSequence => ({
  slot: 0,
  tokens,
  start: 0,
  promptLen: tokens.length,
  blocks: [3, 1],
  rows: [],
  ...changes,
});

/** Logits are the embedding of the token: weight [8, 8] says which token follows which. */
async function openBigram(
  module: BackendModule,
  weight: readonly number[],
  onStepDone?: (id: number, error?: BackendFailure) => void,
): Promise<{ runner: PlainRunner; executable: Executable }> {
  const g = new GraphBuilder('f32');
  g.sample(g.gatherRows(g.embedding(g.input('tokenIds'), g.matrix('embed', 8, 8)), g.input('logitRows')));
  const backend = module.create({ log: () => {} });
  const [device] = await backend.devices();
  const group = await backend.open([device!.id], {});
  const runner = new PlainRunner();
  const { plan } = await planProgram(g.finish(), group, limits);
  const location = {
    name: 'embed',
    file: '',
    offset: 0,
    sizeBytes: 256,
    dtype: 'F32' as const,
    shape: [8, 8],
  };
  const source = { locations: new Map([['embed', location]]), read: async () => Float32Array.from(weight) };
  const executable = await group.load(plan, source, { onStepDone: onStepDone ?? runner.onStepDone });
  runner.executable = executable;
  return { runner, executable };
}

/** Token t is followed by t + 1, then by t + 2, and so on. */
const successor = Array.from({ length: 64 }, (_, i) => 8 - (((i % 8) - Math.floor(i / 8) + 7) % 8));
const greedyRow = (changes: Partial<PlainRow> = {}): PlainRow => ({
  token: 0,
  mode: rowMode.sample | rowMode.greedy,
  ...changes,
});

describe('the reference backend', () => {
  it('writes the outputs of small programs after the sampled rows', async () => {
    const program = await openProgram(
      referenceBackend,
      'f32',
      { embed: identity, w: [1, 2, 3, 4, 5, 6, 7, 8] },
      (g) => {
        const x = g.embedding(g.input('tokenIds'), g.matrix('embed', 8, 8));
        return g.linear(x, g.matrix('w', 1, 8));
      },
    );
    const words = await program.run([sequence([2, 0, 7])], 3);
    expect(Array.from(new Float32Array(words.buffer, words.byteOffset, 3))).toEqual([3, 1, 8]);
    await program.close();
  });

  it('rounds outputs to 16-bit types, two to a word', async () => {
    const program = await openProgram(referenceBackend, 'bf16', { embed: identity.map((x) => 3.001 * x), norm: Array(8).fill(1) }, (g) => {
      const x = g.embedding(g.input('tokenIds'), g.matrix('embed', 8, 8));
      return g.rmsNorm(x, g.vector('norm', 8), { eps: 0 });
    }); // prettier-ignore
    const words = await program.run([sequence([1])], 4);
    // sqrt(8) in bf16 is 2.828125: 0x4035.
    expect(Array.from(new Uint16Array(words.buffer, words.byteOffset, 8))).toEqual([
      0, 0x4035, 0, 0, 0, 0, 0, 0,
    ]);
    await program.close();
  });

  it('keeps last tokens and histories by slot, from step to step', async () => {
    const { runner } = await openBigram(referenceBackend, successor);
    const penalty = { repetitionPenalty: 1e3 };
    const first = await runner.run({ stepId: 1, blockSize, sequences: [
      sequence([5], { slot: 2, history: [5], promptLen: 1, rows: [greedyRow(penalty)] }),
      sequence([0], { slot: 0, blocks: [5, 6], rows: [greedyRow()] }),
    ] }); // prettier-ignore
    expect(first.tokens).toEqual([6, 1]);
    const decode = (stepId: number): Promise<{ tokens: readonly number[] }> =>
      runner.run({ stepId, blockSize, sequences: [
        sequence([-1], { slot: 0, start: 1, blocks: [5, 6], rows: [greedyRow()] }),
        sequence([-1], { slot: 2, start: 1, promptLen: 1, rows: [greedyRow(penalty)] }),
      ] }); // prettier-ignore
    const rest = [];
    for (let stepId = 2; stepId < 9; stepId++) rest.push((await decode(stepId)).tokens);
    expect(rest.map(([plain]) => plain)).toEqual([2, 3, 4, 5, 6, 7, 0]);
    // 5 (the prompt) and what came since are all penalized: every token appears once before any comes again.
    expect(new Set([5, 6, ...rest.slice(0, 6).map(([, penalized]) => penalized)]).size).toBe(8);
    await runner.executable.close();
  });

  it('ignores padding', async () => {
    const { runner } = await openBigram(referenceBackend, successor);
    const { tokens } = await runner.run({
      stepId: 1,
      blockSize,
      numTokens: 16,
      sequences: [sequence([4], { rows: [greedyRow()] })],
    });
    expect(tokens).toEqual([5]);
    await runner.executable.close();
  });

  it('pads top lists with -1 and reports none where none are wanted', async () => {
    const { runner } = await openBigram(referenceBackend, successor);
    const rows = [
      greedyRow({ numLogprobs: 1 }),
      greedyRow({ numLogprobs: 2 }),
      greedyRow({ numLogprobs: -1 }),
    ];
    const result = await runner.run({ stepId: 1, blockSize, sequences: [sequence([4], { rows })] });
    expect(result.topIds).toEqual([[5, -1], [5, 6], [-1, -1]]); // prettier-ignore
    expect(result.ranks).toEqual([1, 1, 0]);
    await runner.executable.close();
  });

  it('says what is wrong with a step, and goes on', async () => {
    const { runner } = await openBigram(referenceBackend, successor);
    const good = encodeStep({ stepId: 1, blockSize, sequences: [sequence([4], { rows: [greedyRow()] })] });
    const ended: (string | undefined)[] = [];
    const { executable } = await openBigram(referenceBackend, successor, (_, error) =>
      ended.push(error?.message),
    );
    executable.run(good.map((word, i) => (i === 0 ? 7 : word)), new Int32Array(64)); // prettier-ignore
    executable.run(good, new Int32Array(64));
    await expect.poll(() => ended.length).toBe(2);
    expect(ended).toEqual(['not a step of version 1', undefined]);
    await executable.close();
    await runner.executable.close();
  });

  it('names missing tensors', async () => {
    const open = openProgram(referenceBackend, 'f32', {}, (g) =>
      g.embedding(g.input('tokenIds'), g.matrix('embed', 8, 8)),
    );
    await expect(open).rejects.toMatchObject({
      code: 'config.weights-missing',
      message: 'the checkpoint has no tensor embed',
    });
  });
});

describe('the null backend', () => {
  const step = (stepId: number, seed = 5n): Int32Array =>
    encodeStep({ stepId, blockSize, sequences: [sequence([4], { rows: [greedyRow({ seed })] })] });

  it('gives tokens of seed and position, never those that are ruled out', async () => {
    const { runner } = await openBigram(createNullBackend({ neverSample: [0, 1, 2, 3] }), successor);
    const rows = Array.from({ length: 40 }, (_, i) => greedyRow({ seed: BigInt(i) }));
    const { tokens } = await runner.run({ stepId: 1, blockSize, sequences: [sequence([4], { rows })] });
    tokens.forEach((token, i) => expect(token).toBe(Math.max(4, Math.floor(8 * uniform(BigInt(i), 0)))));
    await runner.executable.close();
  });

  it('ends steps in order, with the failures asked for', async () => {
    const ended: [number, string | undefined][] = [];
    const inject = (stepId: number): BackendFailure | undefined =>
      stepId === 2 ? { code: 'backend.device-lost', message: 'unplugged' } : undefined;
    const { executable } = await openBigram(createNullBackend({ stepMs: 5, inject }), successor, (id, error) => ended.push([id, error?.code])); // prettier-ignore
    const result = new Int32Array(resultWords(1, 0));
    executable.run(step(1), result);
    executable.run(step(2), new Int32Array(resultWords(1, 0)));
    expect(() => executable.run(step(3), result)).toThrow('more than 2 steps in flight');
    await expect.poll(() => ended).toEqual([[1, undefined], [2, 'backend.device-lost']]); // prettier-ignore
    expect(result[resultHeaderWords]).toBe(Math.floor(8 * uniform(5n, 0)));
    await executable.close();
  });

  it('hangs when told to, until it is closed', async () => {
    const ended: number[] = [];
    const { executable } = await openBigram(createNullBackend({ inject: () => 'hang' }), successor, (id) =>
      ended.push(id),
    );
    executable.run(step(1), new Int32Array(resultWords(1, 0)));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(ended).toEqual([]);
    await executable.close();
    expect(ended).toEqual([]);
  });
});
