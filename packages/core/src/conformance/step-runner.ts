/**
 * Runs plain steps on a backend's executable, on guard: canary words lie around every buffer it is given, steps must come
 * back unchanged and in order, and results start as poison, so that what was never written shows.
 */
import {
  resultHeader, resultHeaderWords, resultWords, stepHeader, type BackendFailure, type DeviceGroup, type Dtype, type Executable,
  type Plan, type StepHeaderField, type WeightSource,
} from '../backend/index.js'; // prettier-ignore
import { decodeBf16, decodeF16 } from '../program/reference/rounding.js';
import { fail } from './case.js';
import { encodeStep, type PlainStep } from './plain-step.js';

/** A step's result, one entry per logit row, and the plan's other outputs by tensor number. */
export interface StepResult {
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
  readonly ranks: readonly number[];
  readonly topIds: readonly (readonly number[])[];
  readonly topLogprobs: readonly (readonly number[])[];
  readonly outputs: ReadonlyMap<number, Float32Array>;
  readonly computeTimeUs: number;
}

export interface RunnerOptions {
  /** Whether recurring shapes bear a capture key. */
  readonly capture?: boolean;
  /** A step that takes longer fails the case. Default: a minute. */
  readonly stepTimeoutMs?: number;
}

const canary = 0x5a5aa5a5 | 0;
const canaryWords = 64;
const poison = 0x7fdeadbe;

/** Words with canaries on both sides. */
class GuardedWords {
  readonly #all: Int32Array;
  readonly words: Int32Array;

  constructor(size: number) {
    this.#all = new Int32Array(size + 2 * canaryWords).fill(canary);
    this.words = this.#all.subarray(canaryWords, canaryWords + size);
  }

  /** Words before (negative) or behind the buffer that something was written to. */
  get written(): number[] {
    const end = this.#all.length - canaryWords;
    return [...this.#all.keys()]
      .filter((i) => (i < canaryWords || i >= end) && this.#all[i] !== canary)
      .map((i) => (i < canaryWords ? i - canaryWords : i - end));
  }
}

interface PendingStep {
  readonly stepId: number;
  readonly step: GuardedWords;
  /** As it was given. */
  readonly sent: Int32Array;
  readonly result: GuardedWords;
  readonly end: (error?: Error) => void;
}

/** Of each step shape its number, shared by the executables of a case: a key means one shape. */
export class ShapeKeys {
  readonly #keys = new Map<string, number>();

  readonly keyOf = (shape: string): number => {
    const key = this.#keys.get(shape) ?? this.#keys.size + 1;
    this.#keys.set(shape, key);
    return key;
  };
}

export class StepRunner {
  readonly plan: Plan;
  readonly #options: RunnerOptions;
  readonly #keys = new ShapeKeys();
  readonly #pending: PendingStep[] = [];
  #executable: Executable | undefined;
  #nextId = 1;

  private constructor(plan: Plan, options: RunnerOptions) {
    this.plan = plan;
    this.#options = options;
  }

  static async load(
    group: DeviceGroup,
    plan: Plan,
    weights: WeightSource,
    options: RunnerOptions = {},
  ): Promise<StepRunner> {
    const runner = new StepRunner(plan, { capture: group.constraints.capture === true, ...options });
    runner.#executable = await group.load(plan, weights, {
      onStepDone: (stepId, error) => runner.#stepDone(stepId, error),
    });
    return runner;
  }

  get executable(): Executable {
    return this.#executable!;
  }

  /** Enqueues a step; its result comes when it has ended. */
  async enqueue(step: Omit<PlainStep, 'stepId'>): Promise<StepResult> {
    const stepId = this.#nextId++;
    const encoded = encodeStep({ ...step, stepId }, this.#options.capture ? this.#keys.keyOf : undefined);
    const stepWords = new GuardedWords(encoded.length);
    stepWords.words.set(encoded);
    const counts = countsOf(encoded);
    const result = new GuardedWords(resultSize(this.plan, counts));
    result.words.fill(poison);
    await this.#ended({ stepId, step: stepWords, sent: encoded, result });
    const { words } = result;
    if (words[resultHeader.indexOf('stepId')] !== stepId || words[resultHeader.indexOf('status')] !== 0)
      fail(`the result of step ${stepId} says step ${words[0]}, status ${words[1]}`);
    const decoded = decodeResult(this.plan, counts, words);
    // The caller may use the buffers again now: whoever still reads or writes them is found out.
    stepWords.words.fill(-0x11111111);
    return decoded;
  }

  async runAll(steps: readonly Omit<PlainStep, 'stepId'>[]): Promise<StepResult[]> {
    const results: StepResult[] = [];
    for (const step of steps) results.push(await this.enqueue(step));
    return results;
  }

  /** Steps that have not ended are not waited for any more. */
  abandon(): void {
    for (const { end } of this.#pending.splice(0)) end(new Error('the executable was closed'));
  }

  async close(): Promise<void> {
    const { fallbacks = 0 } = this.executable.counters?.() ?? {};
    await this.executable.close();
    if (fallbacks > 0) fail(`${fallbacks} ops ran elsewhere than negotiation said (counters().fallbacks)`);
  }

  #ended(step: Omit<PendingStep, 'end'>): Promise<void> {
    const limitMs = this.#options.stepTimeoutMs ?? 60_000;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`step ${step.stepId} did not end within ${limitMs / 1000} s`)),
        limitMs,
      );
      const end = (error?: Error): void => {
        clearTimeout(timer);
        if (error === undefined) resolve();
        else reject(error);
      };
      this.#pending.push({ ...step, end });
      this.executable.run(step.step.words, step.result.words);
    });
  }

  #stepDone(stepId: number, failure: BackendFailure | undefined): void {
    const pending = this.#pending.shift();
    if (pending === undefined) return;
    const problem = stepProblem(pending, stepId, failure);
    pending.end(problem === undefined ? undefined : new Error(problem));
  }
}

function stepProblem(
  { stepId, step, sent, result }: PendingStep,
  endedId: number,
  failure: BackendFailure | undefined,
): string | undefined {
  if (failure !== undefined) return `step ${stepId} failed: ${failure.code}: ${failure.message}`;
  if (endedId !== stepId) return `step ${endedId} was reported as ended, before step ${stepId}`;
  const places = [...result.written, ...step.written];
  if (places.length > 0)
    return `step ${stepId}: something was written outside of its buffers, at words ${places.slice(0, 4)} (negative: before the beginning, else behind the end)`;
  const changed = sent.findIndex((word, i) => word !== step.words[i]);
  return changed < 0 ? undefined : `step ${stepId}: word ${changed} of the step itself was changed`;
}

/** T, S and L of a step, and the length of its top lists. */
export interface StepCounts {
  readonly T: number;
  readonly S: number;
  readonly L: number;
  readonly K: number;
}

export function countsOf(words: Int32Array): StepCounts {
  const field = (name: StepHeaderField): number => words[stepHeader.indexOf(name)]!;
  return { T: field('numTokens'), S: field('numSeqs'), L: field('numLogitRows'), K: field('maxTopLogprobs') };
}

interface OutputTensor {
  readonly id: number;
  readonly dtype: Dtype;
  readonly size: number;
}

function outputTensors(plan: Plan, counts: StepCounts): OutputTensor[] {
  const sampled = new Set(plan.ops.flatMap(({ op, outputs }) => (op === 'sample' ? outputs : [])));
  return plan.tensors.flatMap(({ kind, dtype, dims }, id) => {
    if (kind !== 'output' || sampled.has(id)) return [];
    const size = dims.reduce<number>(
      (product, dim) => product * (typeof dim === 'number' ? dim : counts[dim]),
      1,
    );
    return [{ id, dtype, size }];
  });
}

const wordsOf = ({ dtype, size }: OutputTensor): number =>
  dtype === 'bf16' || dtype === 'f16' ? Math.ceil(size / 2) : size;

export function resultSize(plan: Plan, counts: StepCounts): number {
  const outputs = outputTensors(plan, counts).reduce((sum, tensor) => sum + wordsOf(tensor), 0);
  return resultWords(counts.L, counts.K) + outputs;
}

export function decodeResult(plan: Plan, counts: StepCounts, words: Int32Array): StepResult {
  return {
    ...decodeRows(words, counts),
    outputs: decodeOutputs(plan, counts, words),
    computeTimeUs: words[resultHeader.indexOf('computeTimeUs')]!,
  };
}

/** What sampling wrote for each logit row. */
export function decodeRows(
  words: Int32Array,
  { L, K }: Pick<StepCounts, 'L' | 'K'>,
): Pick<StepResult, 'tokens' | 'logprobs' | 'ranks' | 'topIds' | 'topLogprobs'> {
  const floats = new Float32Array(words.buffer, words.byteOffset, words.length);
  const ints = (at: number, size: number): number[] => Array.from(words.subarray(at, at + size));
  const reals = (at: number, size: number): number[] => Array.from(floats.subarray(at, at + size));
  const ids = resultHeaderWords + 3 * L;
  const perRow = <T>(read: (row: number) => T): T[] => Array.from({ length: L }, (_, row) => read(row));
  return {
    tokens: ints(resultHeaderWords, L),
    logprobs: reals(resultHeaderWords + L, L),
    ranks: ints(resultHeaderWords + 2 * L, L),
    topIds: perRow((row) => ints(ids + row * K, K)),
    topLogprobs: perRow((row) => reals(ids + L * K + row * K, K)),
  };
}

function decodeOutputs(plan: Plan, counts: StepCounts, words: Int32Array): Map<number, Float32Array> {
  let at = resultWords(counts.L, counts.K);
  const outputs = new Map<number, Float32Array>();
  for (const tensor of outputTensors(plan, counts)) {
    outputs.set(tensor.id, decodeFloats(words, at, tensor));
    at += wordsOf(tensor);
  }
  return outputs;
}

function decodeFloats(words: Int32Array, at: number, { dtype, size }: OutputTensor): Float32Array {
  const begin = words.byteOffset + 4 * at;
  if (dtype === 'i32') return Float32Array.from(words.subarray(at, at + size));
  if (dtype === 'f32') return new Float32Array(words.buffer, begin, size).slice();
  const decode = dtype === 'bf16' ? decodeBf16 : decodeF16;
  return Float32Array.from(new Uint16Array(words.buffer, begin, size), decode);
}
