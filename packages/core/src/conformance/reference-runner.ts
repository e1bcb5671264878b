/** The same steps on the reference interpreter: what a backend's answers are compared with. */
import type { Plan, WeightSource } from '../backend/index.js';
import { Interpreter } from '../program/reference/interpreter.js';
import { encodeStep, type PlainStep } from './plain-step.js';
import { loadWeights } from './reference-backend.js';
import { countsOf, decodeResult, resultSize, type StepResult } from './step-runner.js';

export class ReferenceRunner {
  readonly plan: Plan;
  readonly #interpreter: Interpreter;

  private constructor(plan: Plan, weights: readonly Float32Array[]) {
    this.plan = plan;
    this.#interpreter = new Interpreter(plan, weights);
  }

  /** `change`: of the weights' values, before they are used. */
  static async load(
    plan: Plan,
    weights: WeightSource,
    change = (values: Float32Array) => values,
  ): Promise<ReferenceRunner> {
    return new ReferenceRunner(plan, (await loadWeights(plan, weights)).map(change));
  }

  run(step: Omit<PlainStep, 'stepId'>): StepResult {
    const words = encodeStep({ ...step, stepId: 1 });
    const counts = countsOf(words);
    const result = new Int32Array(resultSize(this.plan, counts));
    this.#interpreter.run(words, result);
    return decodeResult(this.plan, counts, result);
  }
}

/** The plan with outputs in f32: its results before they are rounded to their type. */
export function withUnroundedOutputs(plan: Plan): Plan {
  const tensors = plan.tensors.map((tensor) =>
    tensor.kind === 'output' && (tensor.dtype === 'bf16' || tensor.dtype === 'f16')
      ? { ...tensor, dtype: 'f32' as const }
      : tensor,
  );
  return { ...plan, tensors };
}
