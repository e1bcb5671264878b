/**
 * Whole quantized models on the CPU against the reference interpreter, value by value, fused and not, f32 and bf16: what the
 * conformance kit (conformance.test.ts) allows for activations of 8 bits, this backend keeps to 16.
 */
import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { resultHeaderWords, rowMode, type DeviceGroup, type Dtype, type Plan } from '../../core/src/backend/index.js'; // prettier-ignore
import { buildPlan } from '../../core/src/program/build-plan.js';
import { openCheckpoint } from '../../core/src/weights/open-checkpoint.js';
import { encodeStep, type PlainSequence, type PlainStep } from '../../core/tests/support/plain-step.js';
import {
  decodeOutputs,
  openCpu,
  openReference,
  sizeOfResult,
  withAllOutputs,
  type Outputs,
} from './cpu-plan.js';

const ggufs = fileURLToPath(new URL('../../../tests/fixtures/gguf/', import.meta.url));
// in K formats, scales are rounded: tests/gguf-goldens.test.ts compares those
const quantized = readdirSync(ggufs).filter((name) => name.endsWith('.gguf') && !name.includes('-K'));
const blockSize = 16;

const tokensFrom = (seed: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => (seed * 37 + i * i * 11 + i * 5) % 256);
const greedyRow = (token: number) => ({ token, mode: rowMode.sample | rowMode.greedy });

/**
 * A prompt of 70 tokens, one of 9 and padding; then the first one's next token (-1: the one sampled last) beside the rest of
 * the second's prompt.
 */
function steps(nextToken = -1): PlainStep[] {
  const blocks = [
    [7, 2, 9, 0, 5],
    [3, 8],
  ] as const;
  const sequence = (seq: 0 | 1, start: number, tokens: number[], promptLen: number): PlainSequence => ({
    slot: 1 - seq,
    tokens,
    start,
    promptLen,
    blocks: blocks[seq],
    rows: [greedyRow(0), greedyRow(tokens.length - 1)],
  });
  const first = [sequence(0, 0, tokensFrom(1, 70), 70), sequence(1, 0, tokensFrom(2, 9), 20)];
  const second = [sequence(0, 70, [nextToken], 70), sequence(1, 9, tokensFrom(3, 11), 20)];
  return [
    { stepId: 1, blockSize, sequences: first, numTokens: 83 },
    { stepId: 2, blockSize, sequences: second },
  ];
}

/** Of the first prompt's two rows in the first step, the one whose token the second step takes. */
const sampledRow = 1;

/** The group as one that has no fused kernels. */
const withoutFusion = (group: DeviceGroup): Pick<DeviceGroup, 'negotiate' | 'constraints'> => ({
  constraints: group.constraints,
  async negotiate(request) {
    const { answers, batchInvariant } = await group.negotiate(request);
    const refused = { support: 'decompose', kernel: '', reason: 'refused by the test' } as const;
    const isFused = (i: number) =>
      ['linear_add', 'linear_gated', 'qkv_rope_kv_write'].includes(request.ops[i]!.op);
    return { batchInvariant, answers: answers.map((answer, i) => (isFused(i) ? refused : answer)) };
  },
});

async function runOnCpu(
  group: DeviceGroup,
  plan: Plan,
  checkpoint: Parameters<DeviceGroup['load']>[1],
): Promise<{ outputs: Outputs[]; nextToken: number }> {
  let done: (error?: { message: string }) => void = () => {};
  const executable = await group.load(plan, checkpoint, { onStepDone: (_, error) => done(error) });
  const outputs: Outputs[] = [];
  let nextToken: number | undefined;
  for (const step of steps()) {
    const result = new Int32Array(sizeOfResult(plan, step));
    const failure = await new Promise<{ message: string } | undefined>((resolve) => {
      done = resolve;
      executable.run(encodeStep(step), result);
    });
    expect(failure).toBeUndefined();
    expect(result[0]).toBe(step.stepId);
    outputs.push(decodeOutputs(plan, step, result));
    nextToken ??= result[resultHeaderWords + sampledRow]!;
  }
  await executable.close();
  return { outputs, nextToken: nextToken! };
}

/** Among nearly equal logits the device may take another one than the reference, which then goes on with the device's. */
function expectLargest(plan: Plan, expected: Outputs, token: number, tolerance: number): void {
  const logits = plan.ops.find(({ op }) => op === 'sample')!.inputs[0]!;
  const { vocabSize } = plan.limits;
  const row = expected.get(logits)!.subarray(sampledRow * vocabSize, (sampledRow + 1) * vocabSize);
  const largest = Math.max(...row);
  expect(row[token]).toBeGreaterThanOrEqual(largest - tolerance * Math.abs(largest));
}

/** Rows of padding may hold anything in attention's output, and so in all that follows from it. */
const numRealTokens = ({ sequences }: PlainStep): number =>
  sequences.reduce((sum, { tokens }) => sum + tokens.length, 0);

/**
 * Errors relative to the largest value of the tensor. Quantized weights meet rows rounded to 2^-16 of a group's maximum; of bf16 a
 * flipped rounding is 2^-8 of its value. Unpacked weights would fail in bf16: the reference's are not rounded.
 */
const tolerances = { f32: 3e-4, bf16: 0.03 };

function compare(plan: Plan, step: PlainStep, actual: Outputs, expected: Outputs, tolerance: number): void {
  expect(actual.size).toBe(expected.size);
  for (const [id, values] of expected) {
    const { dims } = plan.tensors[id]!;
    const columns = (dims[1] as number | undefined) ?? 1;
    const count = dims[0] === 'T' ? numRealTokens(step) * columns : values.length;
    const scale = values.subarray(0, count).reduce((max, value) => Math.max(max, Math.abs(value)), 1e-3);
    const worst = values
      .subarray(0, count)
      .reduce((max, value, i) => Math.max(max, Math.abs(value - actual.get(id)![i]!)), 0);
    const op = plan.ops.find(({ outputs }) => outputs.includes(id))!;
    expect(worst / scale, `step ${step.stepId}: ${op.op} tensor ${id}`).toBeLessThanOrEqual(tolerance);
  }
}

const variants = (['f32', 'bf16'] as const).flatMap((dtype) => [
  { dtype, fused: true, numThreads: 2 },
  { dtype, fused: false, numThreads: 3 },
]);

for (const path of quantized.map((name) => `${ggufs}${name}`)) {
  it.each(variants)(
    `${basename(path)} computes what the reference does ($dtype, fused: $fused)`,
    async (variant) => {
      const group = await openCpu(variant.numThreads);
      const checkpoint = await openCheckpoint(path);
      const limits = {
      maxTokens: 128, maxSeqs: 4, maxLogitRows: 8, maxModelLen: 128, blockSize, numBlocks: 10,
      vocabSize: checkpoint.config.vocabSize,
    }; // prettier-ignore
      const planner = variant.fused ? group : withoutFusion(group);
      const { plan: built } = await buildPlan(checkpoint.config, variant.dtype as Dtype, planner, limits, checkpoint.locations); // prettier-ignore
      const schemes = built.weights.filter(({ scheme }) => scheme !== undefined);
      expect(schemes.length).toBeGreaterThan(0);
      const tolerance = tolerances[variant.dtype];
      expect(built.ops.some(({ op }) => op === 'linear_gated')).toBe(variant.fused);
      const plan = withAllOutputs(built);
      const reference = await openReference(plan, checkpoint);
      const actual = await runOnCpu(group, plan, checkpoint);
      steps(actual.nextToken).forEach((step, i) => {
        const expected = reference(step);
        if (i === 0) expectLargest(plan, expected, actual.nextToken, tolerance);
        compare(plan, step, actual.outputs[i]!, expected, tolerance);
      });
      await group.close();
    },
  );
}
