/**
 * The backend contract. What crosses it is plain data, typed arrays and opaque handles; a backend imports nothing else
 * of core. See docs/architecture.md.
 */
import type { Dtype } from './dtype.js';
import type { OpName } from './ops.js';
import type { Plan, PlanOp, TensorLocation } from './plan.js';
import type { WeightScheme } from './weight-scheme.js';

/**
 * The default export's shape of a backend package's entry point. Whatever a backend throws or rejects with is an Error whose
 * `code` is one of docs/errors.md (core makes it a TenonError); anything else counts as a bug.
 */
export interface BackendModule {
  readonly api: { readonly major: 1; readonly minor: number; readonly features: readonly string[] };
  create(host: Host): Backend;
}

/** What core offers a backend. */
export interface Host {
  log(level: 'debug' | 'info' | 'warn', message: string): void;
}

export interface Backend {
  readonly info: BackendInfo;
  /** Cheap. An unusable device is listed with a reason and a remedy, never left out. */
  devices(): Promise<DeviceInfo[]>;
  open(deviceIds: readonly string[], options: OpenOptions): Promise<DeviceGroup>;
}

export interface BackendInfo {
  readonly id: string;
  readonly owner: string;
  readonly version: string;
  /** What it runs on, for people: `{ isa: 'avx512-bf16', threads: '2' }`. */
  readonly runtime: Readonly<Record<string, string>>;
}

export interface DeviceInfo {
  /** `<backend id>:<n>`. */
  readonly id: string;
  readonly class: 'cpu' | 'gpu' | 'npu' | 'tpu' | 'other';
  readonly name: string;
  readonly usable: boolean;
  readonly reason?: string;
  readonly remedy?: string;
  readonly memoryBytes: number;
  /** Bytes that may still be taken, the limits of containers included. */
  readonly freeBytes: number;
  readonly dtypes: readonly Dtype[];
  /** The type that `--dtype auto` means for a checkpoint of 16- or 32-bit floats. */
  readonly preferredDtype: Dtype;
}

export interface OpenOptions {
  /** Compute threads or streams; the backend's default where absent. */
  readonly numThreads?: number;
}

/** What the scheduler must respect. Data only: the one scheduler obeys it. */
export interface SchedulingConstraints {
  /** Accepted KV block sizes in tokens, preferred first. */
  readonly blockSizes: readonly number[];
  /** Token counts a step may have, ascending; empty: any. A step is padded up to the next one. */
  readonly tokenBuckets: readonly number[];
  readonly maxTokens?: number;
  readonly maxSeqs?: number;
  /** Whether prompts and single tokens may share a step. */
  readonly mixedPrefillDecode: boolean;
  readonly stepsInFlight: number;
  /** Default of `--max-num-batched-tokens`: enough tokens to be compute-bound, few enough for short steps. */
  readonly preferredBatchedTokens: number;
}

export interface NegotiateRequest {
  /** `dtypes`: of the operands that are there, then of the outputs, in the op table's order. `layer` is that of any one layer. */
  readonly ops: readonly {
    readonly op: OpName;
    readonly attrs: PlanOp['attrs'];
    readonly dtypes: readonly Dtype[];
    /**
     * How the operand `weight` would be held; absent: as plain numbers. Where the answer is not `native`, the weight is unpacked
     * (the op with plain numbers is asked about too).
     */
    readonly weightScheme?: WeightScheme;
  }[];
}
export interface OpAnswer {
  readonly support: 'native' | 'decompose' | 'unsupported';
  readonly kernel: string;
  readonly reason?: string;
}
export interface Negotiation {
  /** One answer per requested op, in order. */
  readonly answers: readonly OpAnswer[];
  readonly batchInvariant: boolean;
}

export interface MemoryStats {
  readonly arena: 'weights' | 'kv' | 'workspace';
  readonly usedBytes: number;
}

export interface DeviceGroup {
  readonly constraints: SchedulingConstraints;
  /** Bytes of KV cache per block and layer, layout padding included. */
  kvBlockBytes(layer: { numKvHeads: number; headDim: number; dtype: Dtype }, blockSize: number): number;
  negotiate(request: NegotiateRequest): Promise<Negotiation>;
  load(plan: Plan, weights: WeightSource, options: LoadOptions): Promise<Executable>;
  close(): Promise<void>;
}

/** Where the checkpoint's tensors are. Native backends map `locations`; others call `read`. */
export interface WeightSource {
  readonly locations: ReadonlyMap<string, TensorLocation>;
  /** All values of a tensor, dequantized, in row-major order. */
  read(name: string): Promise<Float32Array>;
}

export interface LoadOptions {
  readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
  /** Called when a step has ended, in the order of `run`. The step's buffers may be reused from then on. */
  readonly onStepDone: (stepId: number, error?: BackendFailure) => void;
}

/** A failure said as data. `code` is one of the backend codes of docs/errors.md. */
export interface BackendFailure {
  readonly code: 'backend.step-failed' | 'backend.device-lost' | 'backend.out-of-memory';
  readonly message: string;
}

export interface Executable {
  /**
   * Enqueues a step and returns at once. At most `constraints.stepsInFlight` are in flight. The buffers belong to the
   * backend until `onStepDone`.
   */
  run(step: Int32Array, result: Int32Array): void;
  memory(): readonly MemoryStats[];
  close(): Promise<void>;
}
