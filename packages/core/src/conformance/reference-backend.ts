/** The reference backend: runs plans with the float32 references, in plain TypeScript. The truth, and slow. */
import {
  dtypeBytes, ops, type Backend, type BackendModule, type DeviceGroup, type DeviceInfo, type Executable, type LoadOptions,
  type MemoryStats, type NegotiateRequest, type Negotiation, type OpenOptions, type OpName, type Plan,
  type SchedulingConstraints, type WeightSource,
} from '../backend/index.js'; // prettier-ignore
import { TenonError, invariant } from '../errors.js';
import { planBytes } from '../program/explain.js';
import { Interpreter, type OnValue } from '../program/reference/interpreter.js';
import { opReferences, type OpReferences } from '../program/reference/op-reference.js';
import { roundTo } from '../program/reference/rounding.js';
import { AsyncSteps } from './async-steps.js';

export interface ReferenceBackendOptions {
  readonly constraints?: Partial<SchedulingConstraints>;
  /** Ops to refuse, with a reason each: fused ones then run as their parts. */
  readonly refuse?: Partial<Record<OpName, string>>;
  /** Memory that the device claims to have. */
  readonly memoryBytes?: number;
  /** Sees every result of every op. */
  readonly onValue?: OnValue;
  /** Ops that compute something else: faults that the conformance kit has to find. */
  readonly references?: Partial<OpReferences>;
}

const defaultMemoryBytes = 2 ** 30;

export const referenceConstraints: SchedulingConstraints = {
  blockSizes: [16, 32, 64, 128],
  tokenBuckets: [],
  mixedPrefillDecode: true,
  stepsInFlight: 2,
  preferredBatchedTokens: 256,
};

/** A backend module with its own options; `referenceBackend` has the defaults. */
export function createReferenceBackend(options: ReferenceBackendOptions = {}): BackendModule {
  return { api: { major: 1, minor: 0, features: [] }, create: () => new ReferenceBackend(options) };
}

export const referenceBackend: BackendModule = createReferenceBackend();

class ReferenceBackend implements Backend {
  readonly info = {
    id: 'reference',
    owner: '@tenon/core',
    version: '0.1.0',
    runtime: { kernels: 'typescript' },
  };
  readonly #options: ReferenceBackendOptions;

  constructor(options: ReferenceBackendOptions) {
    this.#options = options;
  }

  async devices(): Promise<DeviceInfo[]> {
    const { memoryBytes = defaultMemoryBytes } = this.#options;
    return [
      {
        id: 'reference:0',
        class: 'other',
        name: 'float32 reference',
        usable: true,
        memoryBytes,
        freeBytes: memoryBytes,
        dtypes: ['f32', 'bf16', 'f16'],
        preferredDtype: 'f32',
      },
    ];
  }

  async open(deviceIds: readonly string[], { parallel }: OpenOptions): Promise<DeviceGroup> {
    if (deviceIds.length !== 1 || deviceIds[0] !== 'reference:0') {
      throw new TenonError(
        'config.device-not-found',
        `no devices ${deviceIds}; the reference backend has reference:0`,
      );
    }
    if (parallel !== undefined && parallel.size !== 1) {
      const message = `parallel.size is ${parallel.size}; the reference backend has one device, which is one rank`;
      throw new TenonError('config.invalid-option', message);
    }
    return new ReferenceGroup(this.#options);
  }
}

class ReferenceGroup implements DeviceGroup {
  readonly constraints: SchedulingConstraints;
  readonly #options: ReferenceBackendOptions;

  constructor(options: ReferenceBackendOptions) {
    this.#options = options;
    this.constraints = { ...referenceConstraints, ...options.constraints };
  }

  /** K and V are held in f32, whatever type they are rounded to. */
  kvBlockBytes(layer: Parameters<DeviceGroup['kvBlockBytes']>[0], blockSize: number): number {
    return 2 * layer.numKvHeads * layer.headDim * blockSize * dtypeBytes.f32;
  }

  async negotiate({ ops: asked }: NegotiateRequest): Promise<Negotiation> {
    const answers = asked.map(({ op }) => {
      const reason = this.#options.refuse?.[op];
      if (reason === undefined) return { support: 'native' as const, kernel: `reference.${op}` };
      return {
        support: ops[op].fused ? ('decompose' as const) : ('unsupported' as const),
        kernel: '',
        reason,
      };
    });
    return { answers, batchInvariant: true };
  }

  async load(plan: Plan, weights: WeightSource, options: LoadOptions): Promise<Executable> {
    this.#requireMemory(plan);
    const values = await loadWeights(plan, weights, options.onProgress);
    return new ReferenceExecutable(plan, values, this.constraints.stepsInFlight, options, this.#options);
  }

  #requireMemory(plan: Plan): void {
    const { memoryBytes = defaultMemoryBytes } = this.#options;
    const kvBytes = plan.kvLayers.reduce(
      (sum, layer) => sum + this.kvBlockBytes(layer, plan.limits.blockSize),
      0,
    );
    const wanted = planBytes(plan).weights + plan.arenaBytes + kvBytes * plan.limits.numBlocks;
    if (wanted <= memoryBytes) return;
    const message = `the plan needs ${wanted} bytes, of which ${kvBytes * plan.limits.numBlocks} are KV cache; the device has ${memoryBytes}`;
    throw new TenonError('backend.out-of-memory', message);
  }

  async close(): Promise<void> {}
}

/** The values of each of the plan's weights, rounded to their types. */
export async function loadWeights(
  plan: Plan,
  source: WeightSource,
  onProgress?: LoadOptions['onProgress'],
): Promise<Float32Array[]> {
  const values: Float32Array[] = [];
  for (const weight of plan.weights) {
    const data = weight.data?.slice() ?? (await readParts(source, weight.parts));
    const numel = weight.shape.reduce((product, dim) => product * dim, 1);
    if (data.length !== numel) {
      const message = `${weight.name} has ${data.length} values; its shape [${weight.shape}] needs ${numel}`;
      throw new TenonError('config.weights-invalid', message);
    }
    // what a scheme holds is not rounded to dtype
    values.push(weight.scheme === undefined ? roundTo(data, weight.dtype) : data);
    onProgress?.(values.length, plan.weights.length);
  }
  return values;
}

/** The parts of a weight, one after another. */
async function readParts(weights: WeightSource, parts: readonly string[]): Promise<Float32Array> {
  const pieces: Float32Array[] = [];
  for (const part of parts) {
    if (!weights.locations.has(part))
      throw new TenonError('config.weights-missing', `the checkpoint has no tensor ${part}`);
    pieces.push(await weights.read(part));
  }
  const joined = new Float32Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

class ReferenceExecutable implements Executable {
  readonly #interpreter: Interpreter;
  readonly #steps: AsyncSteps;
  readonly #stats: readonly MemoryStats[];
  readonly #stepsInFlight: number;
  readonly #onValue: OnValue | undefined;

  constructor(
    plan: Plan,
    weights: readonly Float32Array[],
    stepsInFlight: number,
    options: LoadOptions,
    { onValue, references }: ReferenceBackendOptions,
  ) {
    this.#interpreter = new Interpreter(plan, weights, { ...opReferences, ...references });
    this.#steps = new AsyncSteps(options.onStepDone);
    this.#stepsInFlight = stepsInFlight;
    this.#onValue = onValue;
    this.#stats = [
      { arena: 'weights', usedBytes: weights.reduce((sum, weight) => sum + weight.byteLength, 0) },
      { arena: 'kv', usedBytes: this.#interpreter.kv.sizeBytes },
      { arena: 'workspace', usedBytes: plan.arenaBytes },
    ];
  }

  run(step: Int32Array, result: Int32Array): void {
    invariant(this.#steps.inFlight < this.#stepsInFlight, `more than ${this.#stepsInFlight} steps in flight`);
    const stepId = step[2]!;
    this.#steps.enqueue({ stepId, execute: () => this.#interpreter.run(step, result, this.#onValue) });
  }

  memory(): readonly MemoryStats[] {
    return this.#stats;
  }

  close(): Promise<void> {
    return this.#steps.close();
  }
}
