/**
 * The null backend: computes nothing and gives tokens by hash of (seed, position), at once or after a set time. Drives tests of
 * scheduler, server and load without a model's cost; failures and hangs can be injected.
 */
import {
  dtypeBytes, resultHeader, resultHeaderWords, rowMode, stepHeader, type Backend, type BackendFailure, type BackendModule,
  type DeviceGroup, type DeviceInfo, type Executable, type LoadOptions, type MemoryStats, type NegotiateRequest,
  type Negotiation, type Plan, type SchedulingConstraints,
} from '../backend/index.js'; // prettier-ignore
import { TenonError, invariant } from '../errors.js';
import { planBytes } from '../program/explain.js';
import { uniform } from '../program/reference/sample.js';
import { StepReader } from '../program/reference/step-reader.js';
import { AsyncSteps } from './async-steps.js';
import { referenceConstraints } from './reference-backend.js';

export interface NullBackendOptions {
  /** As a package's manifest names it; `null` by default. */
  readonly id?: string;
  readonly constraints?: Partial<SchedulingConstraints>;
  /** Milliseconds a step takes: a fixed part, and one per token. */
  readonly stepMs?: number;
  readonly tokenMs?: number;
  readonly memoryBytes?: number;
  /** Tokens that are never sampled (end tokens, so that requests run to their length). */
  readonly neverSample?: readonly number[];
  /** Asked before each step, by its number: a failure ends the step with it, 'hang' never ends it. */
  readonly inject?: (stepId: number) => BackendFailure | 'hang' | undefined;
}

export function createNullBackend(options: NullBackendOptions = {}): BackendModule {
  return { api: { major: 1, minor: 0, features: [] }, create: () => new NullBackend(options) };
}

export const nullBackend: BackendModule = createNullBackend();

class NullBackend implements Backend {
  readonly info;
  readonly #options: NullBackendOptions;

  constructor(options: NullBackendOptions) {
    this.#options = options;
    const { id = 'null' } = options;
    this.info = { id, owner: '@tenon/core', version: '0.1.0', runtime: { kernels: 'none' } };
  }

  get #deviceId(): string {
    return `${this.info.id}:0`;
  }

  async devices(): Promise<DeviceInfo[]> {
    const memoryBytes = this.#options.memoryBytes ?? 2 ** 34;
    return [
      {
        id: this.#deviceId,
        class: 'other',
        name: 'no device',
        usable: true,
        memoryBytes,
        freeBytes: memoryBytes,
        dtypes: ['f32', 'bf16', 'f16'],
        preferredDtype: 'bf16',
      },
    ];
  }

  async open(deviceIds: readonly string[]): Promise<DeviceGroup> {
    if (deviceIds.length !== 1 || deviceIds[0] !== this.#deviceId) {
      throw new TenonError(
        'config.device-not-found',
        `no devices ${deviceIds}; the null backend has ${this.#deviceId}`,
      );
    }
    return new NullGroup(this.#options);
  }
}

class NullGroup implements DeviceGroup {
  readonly constraints: SchedulingConstraints;
  readonly #options: NullBackendOptions;

  constructor(options: NullBackendOptions) {
    this.#options = options;
    this.constraints = { ...referenceConstraints, preferredBatchedTokens: 2048, ...options.constraints };
  }

  kvBlockBytes(layer: Parameters<DeviceGroup['kvBlockBytes']>[0], blockSize: number): number {
    return 2 * layer.numKvHeads * layer.headDim * blockSize * dtypeBytes[layer.dtype];
  }

  async negotiate({ ops }: NegotiateRequest): Promise<Negotiation> {
    return {
      answers: ops.map(({ op }) => ({ support: 'native', kernel: `null.${op}` })),
      batchInvariant: true,
    };
  }

  async load(plan: Plan, _weights: unknown, options: LoadOptions): Promise<Executable> {
    const bytes = planBytes(plan).weights;
    options.onProgress?.(bytes, bytes);
    const kvBytes = plan.kvLayers.reduce(
      (sum, layer) => sum + this.kvBlockBytes(layer, plan.limits.blockSize),
      0,
    );
    const memory: MemoryStats[] = [
      { arena: 'weights', usedBytes: bytes },
      { arena: 'kv', usedBytes: kvBytes * plan.limits.numBlocks },
      { arena: 'workspace', usedBytes: plan.arenaBytes },
    ];
    return new NullExecutable(
      plan.limits.vocabSize,
      memory,
      this.constraints.stepsInFlight,
      this.#options,
      options,
    );
  }

  async close(): Promise<void> {}
}

class NullExecutable implements Executable {
  readonly #steps: AsyncSteps;
  readonly #vocabSize: number;
  readonly #memory: readonly MemoryStats[];
  readonly #stepsInFlight: number;
  readonly #options: NullBackendOptions;
  #abortWait: () => void = () => {};
  #closed = false;

  constructor(
    vocabSize: number,
    memory: readonly MemoryStats[],
    stepsInFlight: number,
    options: NullBackendOptions,
    load: LoadOptions,
  ) {
    this.#vocabSize = vocabSize;
    this.#memory = memory;
    this.#stepsInFlight = stepsInFlight;
    this.#options = options;
    this.#steps = new AsyncSteps(load.onStepDone);
  }

  run(words: Int32Array, result: Int32Array): void {
    invariant(this.#steps.inFlight < this.#stepsInFlight, `more than ${this.#stepsInFlight} steps in flight`);
    const stepId = words[stepHeader.indexOf('stepId')]!;
    this.#steps.enqueue({ stepId, execute: () => this.#execute(new StepReader(words), result) });
  }

  memory(): readonly MemoryStats[] {
    return this.#memory;
  }

  /** Ends waits and hangs too. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#abortWait();
    await this.#steps.close();
  }

  async #execute(step: StepReader, result: Int32Array): Promise<void> {
    const injected = this.#options.inject?.(step.stepId);
    if (injected === 'hang') return this.#wait();
    if (injected !== undefined) throw new TenonError(injected.code, injected.message);
    const { stepMs = 0, tokenMs = 0 } = this.#options;
    const ms = stepMs + tokenMs * step.numTokens;
    if (ms > 0) await this.#wait(ms);
    writeResult(step, result, this.#vocabSize, this.#options.neverSample ?? []);
  }

  /** Until the time is over, or for ever, but no longer than to `close`. */
  #wait(ms?: number): Promise<void> {
    if (this.#closed) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(resolve, ms);
      this.#abortWait = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Each sampling row gets a token that depends on its seed and position alone; every logprob is -1 and every rank 1. */
function writeResult(
  step: StepReader,
  result: Int32Array,
  vocabSize: number,
  neverSample: readonly number[],
): void {
  const L = step.numLogitRows;
  const K = step.maxTopLogprobs;
  const floats = new Float32Array(result.buffer, result.byteOffset, result.length);
  const header = { stepId: step.stepId, status: 0, numLogitRows: L, maxTopLogprobs: K, computeTimeUs: 0 };
  for (const [field, value] of Object.entries(header))
    result[resultHeader.indexOf(field as 'stepId')] = value;
  for (let row = 0; row < L; row++) {
    const samples = (step.ints('rowModes', L)[row]! & rowMode.sample) !== 0;
    const token = samples ? tokenOf(step, row, vocabSize, neverSample) : -1;
    const wanted = step.ints('numLogprobs', L)[row]!;
    result[resultHeaderWords + row] = token;
    floats[resultHeaderWords + L + row] = wanted < 0 ? 0 : -1;
    result[resultHeaderWords + 2 * L + row] = wanted < 0 ? 0 : 1;
    const ids = resultHeaderWords + 3 * L + row * K;
    for (let i = 0; i < K; i++) {
      result[ids + i] = i < wanted ? (Math.max(token, 0) + i) % vocabSize : -1;
      floats[ids + L * K + i] = -1;
    }
  }
}

function tokenOf(step: StepReader, row: number, vocabSize: number, neverSample: readonly number[]): number {
  const L = step.numLogitRows;
  const position = step.ints('positions', step.numTokens)[step.ints('logitRows', L)[row]!]!;
  let token = Math.floor(uniform(step.seed(row), position) * vocabSize);
  while (neverSample.includes(token)) token = (token + 1) % vocabSize;
  return token;
}
