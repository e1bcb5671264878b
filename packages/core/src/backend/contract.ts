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
  /** The memory is the computer's own, which other programs need too: a KV cache takes part of it only. Absent: true of the class `cpu`. */
  readonly memoryIsShared?: boolean;
  readonly dtypes: readonly Dtype[];
  /** The type that `--dtype auto` means for a checkpoint of 16- or 32-bit floats. */
  readonly preferredDtype: Dtype;
}

export interface OpenOptions {
  /** Compute threads or streams; the backend's default where absent. */
  readonly numThreads?: number;
  /** This group computes together with others, each opened with the same `groupId` and `size` and its own `rank`. Absent: alone. */
  readonly parallel?: { readonly rank: number; readonly size: number; readonly groupId: string };
}

/** What the scheduler must respect. Data only: the one scheduler obeys it. A field that is absent sets no limit. */
export interface SchedulingConstraints {
  /** Accepted KV block sizes in tokens, preferred first. With `slots`: its first is the unit that slots are rounded up to. */
  readonly blockSizes: readonly number[];
  /**
   * `slots`: the KV cache of a sequence lies in one piece, so a block holds the longest sequence there may be and a sequence has
   * one block. Absent: `paged`.
   */
  readonly kvLayout?: 'paged' | 'slots';
  /** Token counts a step may have, ascending; empty: any. A step is padded up to the next one. */
  readonly tokenBuckets: readonly number[];
  /**
   * Numbers of sequences that a step of single tokens may have, ascending; absent or empty: any. Such a step is padded up to the next
   * one in tokens, sequences and logit rows alike, instead of by `tokenBuckets`.
   */
  readonly decodeBuckets?: readonly number[];
  readonly maxTokens?: number;
  readonly maxSeqs?: number;
  /** Whether prompts and single tokens may share a step. */
  readonly mixedPrefillDecode: boolean;
  /** False: a prompt is computed whole, in one step, from its first token on; so there is no prefix caching. Absent: true. */
  readonly chunkedPrefill?: boolean;
  readonly stepsInFlight: number;
  /** Default of `--max-num-batched-tokens`: enough tokens to be compute-bound, few enough for short steps. */
  readonly preferredBatchedTokens: number;
  /** Default of `--max-num-seqs`. */
  readonly preferredSeqs?: number;
  /** Default of the tokens of prompts in a step that requests which are answering wait for. */
  readonly preferredPromptTokensBesideDecodes?: number;
  /** Multiplications and additions a second that even a slow device of this kind computes; steps that would take longer count as hung. */
  readonly slowestOperationsPerSecond?: number;
  /** Steps whose shape recurs bear a `captureKey` (step.ts), so that they can be recorded and replayed. */
  readonly capture?: boolean;
  /** A step of padding is run for every bucket, then `freeze` is called, before anything is served. */
  readonly warmup?: boolean;
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
  /** Whether a recorded call may be replayed as it is, or needs this step's parameters first, or must be made anew. Absent: safe. */
  readonly capture?: CaptureState;
}
export type CaptureState = 'safe' | 'needs-rebind' | 'never';
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
  /**
   * Given: `plan.limits.numBlocks` is the most that the KV cache may have. It gets as many as there is room for once all else is
   * allocated, with so many bytes of the device's memory left free. Absent: exactly that many. A backend may take it for absent.
   */
  readonly spareBytes?: number;
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
  /** Blocks of the KV cache; absent: those of the plan. */
  readonly numBlocks?: number;
  memory(): readonly MemoryStats[];
  /** Warm-up has ended: what is compiled or allocated from here on shows in `counters`. */
  freeze?(): void;
  counters?(): Counters;
  close(): Promise<void>;
}

/** What an executable has done so far. A backend that does none of something says 0. */
export interface Counters {
  readonly steps: number;
  /** Recorded shapes, replays of them, and calls made anew for parameters of a replay. */
  readonly captures: number;
  readonly replays: number;
  readonly rebinds: number;
  /** Since `freeze`. */
  readonly compiles: number;
  readonly allocations: number;
  /** Ops that ran elsewhere than negotiation said. */
  readonly fallbacks: number;
  /** Times that enqueueing a step waited for the device. */
  readonly hostSyncs: number;
}
