/** Plans on the CPU backend for tests: opened once, all intermediate values brought back in the step's result. */
import {
  resultWords,
  type DeviceGroup,
  type Dtype,
  type Plan,
  type PlanTensor,
} from '../../core/src/backend/index.js';
import { Interpreter } from '../../core/src/program/reference/interpreter.js';
import { roundTo } from '../../core/src/program/reference/rounding.js';
import type { Checkpoint } from '../../core/src/weights/checkpoint.js';
import { encodeStep, type PlainStep } from '../../core/tests/support/plain-step.js';
import backend from '../src/index.js';

export async function openCpu(numThreads?: number): Promise<DeviceGroup> {
  return backend.create({ log() {} }).open(['cpu:0'], { numThreads });
}

/** The plan with every activation among its outputs. */
export function withAllOutputs(plan: Plan): Plan {
  const tensors = plan.tensors.map((tensor): PlanTensor =>
    tensor.kind === 'buffer' ? { kind: 'output', dtype: tensor.dtype, dims: tensor.dims } : tensor,
  );
  return { ...plan, tensors };
}

/** What the plan's outputs but the sampled tokens hold after a step, by tensor number. */
export type Outputs = Map<number, Float32Array>;

/** Runs the plan on the reference interpreter. */
export async function openReference(
  plan: Plan,
  checkpoint: Checkpoint,
): Promise<(step: PlainStep) => Outputs> {
  const weights: Float32Array[] = [];
  for (const { parts, data, dtype, scheme } of plan.weights) {
    const pieces = await Promise.all(parts.map((part) => checkpoint.read(part)));
    const values = data ?? Float32Array.from(pieces.flatMap((piece) => Array.from(piece)));
    weights.push(scheme === undefined ? roundTo(values.slice(), dtype) : values);
  }
  const interpreter = new Interpreter(plan, weights);
  return (step) => {
    const words = encodeStep(step);
    const result = new Int32Array(sizeOfResult(plan, step));
    interpreter.run(words, result);
    return decodeOutputs(plan, step, result);
  };
}

const countsOf = (step: PlainStep): { T: number; S: number; L: number } => ({
  T: step.numTokens ?? step.sequences.reduce((sum, { tokens }) => sum + tokens.length, 0),
  S: step.sequences.length,
  L: step.sequences.reduce((sum, { rows }) => sum + rows.length, 0),
});

function outputTensors(plan: Plan, step: PlainStep): { id: number; dtype: Dtype; size: number }[] {
  const counts = countsOf(step);
  const sampled = new Set(plan.ops.flatMap(({ op, outputs }) => (op === 'sample' ? outputs : [])));
  return plan.tensors.flatMap(({ kind, dtype, dims }, id) => {
    if (kind !== 'output' || sampled.has(id)) return [];
    return [{ id, dtype, size: dims.reduce<number>((size, dim) => size * (typeof dim === 'number' ? dim : counts[dim]), 1) }]; // prettier-ignore
  });
}

const wordsOf = ({ dtype, size }: { dtype: Dtype; size: number }): number =>
  dtype === 'f32' || dtype === 'i32' ? size : Math.ceil(size / 2);

export function sizeOfResult(plan: Plan, step: PlainStep): number {
  const words = outputTensors(plan, step).reduce((sum, tensor) => sum + wordsOf(tensor), 0);
  return resultWords(countsOf(step).L, 0) + words;
}

export function decodeOutputs(plan: Plan, step: PlainStep, result: Int32Array): Outputs {
  let at = resultWords(countsOf(step).L, 0);
  const outputs: Outputs = new Map();
  for (const tensor of outputTensors(plan, step)) {
    const begin = result.byteOffset + 4 * at;
    if (tensor.dtype === 'f32')
      outputs.set(tensor.id, new Float32Array(result.buffer, begin, tensor.size).slice());
    if (tensor.dtype === 'bf16')
      outputs.set(tensor.id, fromBf16(new Uint16Array(result.buffer, begin, tensor.size)));
    at += wordsOf(tensor);
  }
  return outputs;
}

function fromBf16(values: Uint16Array): Float32Array {
  return new Float32Array(Uint32Array.from(values, (bits) => bits << 16).buffer);
}
