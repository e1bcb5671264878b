/** The engine's options: what a user may give, and the complete, checked form that everything else sees. */
import type { Dtype } from '../backend/index.js';
import { TenonError } from '../errors.js';

/** vLLM's names in camelCase, all optional. */
export interface EngineOptions {
  /** `auto`, `bfloat16`, `float16` (`half`), `float32` (`float`). auto: what suits checkpoint and device. */
  readonly dtype?: string;
  /** `auto`: quantized weights are computed as the checkpoint holds them; `none`: they are unpacked to `dtype` while loading. */
  readonly quantization?: string;
  /** Tokens of prompt and answer together. `auto` or -1: as many as fit; by default the model's own length. */
  readonly maxModelLen?: number | 'auto';
  /** Tokens per KV block; the device's preferred size by default. */
  readonly blockSize?: number;
  /** Share of the device's free memory that may be used, 0…1. */
  readonly gpuMemoryUtilization?: number;
  /** Size of the KV cache, instead of the share. */
  readonly kvCacheMemoryBytes?: number;
  /** Blocks of the KV cache, instead of either. */
  readonly numGpuBlocksOverride?: number;
  /** Sequences computed together at most. */
  readonly maxNumSeqs?: number;
  /** Tokens computed in one step at most. */
  readonly maxNumBatchedTokens?: number;
  readonly enablePrefixCaching?: boolean;
  readonly enableChunkedPrefill?: boolean;
  /** Tokens of one prompt in a step at most; 0: no limit. */
  readonly longPrefillTokenThreshold?: number;
  readonly schedulingPolicy?: string;
  /** Requests that may wait, besides `maxNumSeqs` that run; more are refused. By default, any number. */
  readonly maxNumWaitingRequests?: number;
  /** Seconds that a step may take before the device counts as lost; 0: any time. By default a minute, on a CPU what its work may take. */
  readonly stepTimeout?: number;
  /** Seconds without progress of a load before the device counts as hung; 0: any time. By default 10 minutes. */
  readonly loadTimeout?: number;
  /** When the device is lost, a step hangs or the engine's thread dies: start again, and then run the requests that had not begun. */
  readonly restartOnDeviceLoss?: boolean;
  /** Schedule the next steps while one runs. */
  readonly asyncScheduling?: boolean;
  /** Share of KV blocks that admitting a request leaves free, while others run. */
  readonly watermark?: number;
  /** Seeds requests that bring none; by default theirs are random. */
  readonly seed?: number;
  /** Top logprobs a request may ask for; -1: the vocabulary. */
  readonly maxLogprobs?: number;
  /** `raw_logprobs`, `processed_logprobs`. */
  readonly logprobsMode?: string;
  /** Serve token ids only. */
  readonly skipTokenizerInit?: boolean;
  readonly servedModelName?: string | readonly string[];
  /** Folder, GGUF file or hub id to take the tokenizer from. */
  readonly tokenizer?: string;
  readonly revision?: string;
  readonly downloadDir?: string;
  /** `auto`, `cpu`, `<backend>` or `<backend>:<n>`. */
  readonly device?: string;
  /** `auto`: sampling defaults of the model's generation_config.json; `vllm` or `tenon`: none of them. */
  readonly generationConfig?: string;
  /** Laid over the model's config.json. */
  readonly hfOverrides?: Readonly<Record<string, unknown>>;
  /** Compute threads; the device's default where absent. */
  readonly numThreads?: number;
  /** Packages or folders to look for backends in, besides the application's dependencies. */
  readonly plugins?: readonly string[];
  /** Logits processors by name, from the packages that declare them. */
  readonly logitsProcessors?: readonly string[];
}

export interface EngineConfig {
  /** Undefined: auto. */
  readonly dtype: Dtype | undefined;
  readonly unpacksWeights: boolean;
  /** Undefined: the model's own length. */
  readonly maxModelLen: number | 'auto' | undefined;
  readonly blockSize: number | undefined;
  readonly gpuMemoryUtilization: number;
  readonly kvCacheMemoryBytes: number | undefined;
  readonly numGpuBlocksOverride: number | undefined;
  readonly maxNumSeqs: number | undefined;
  readonly maxNumBatchedTokens: number | undefined;
  readonly enablePrefixCaching: boolean;
  readonly enableChunkedPrefill: boolean;
  readonly longPrefillTokenThreshold: number;
  readonly schedulingPolicy: 'fcfs' | 'priority';
  /** Infinity: any number. */
  readonly maxNumWaitingRequests: number;
  /** Seconds; undefined: what suits the device and the model; Infinity: any time. */
  readonly stepTimeout: number | undefined;
  readonly loadTimeout: number;
  readonly restartOnDeviceLoss: boolean;
  readonly asyncScheduling: boolean;
  readonly watermark: number;
  readonly seed: number | undefined;
  readonly maxLogprobs: number;
  readonly logprobsMode: 'raw_logprobs' | 'processed_logprobs';
  readonly skipTokenizerInit: boolean;
  /** The first is in answers; empty: the model's name. */
  readonly servedModelNames: readonly string[];
  readonly tokenizer: string | undefined;
  readonly revision: string | undefined;
  readonly downloadDir: string | undefined;
  readonly device: string;
  readonly usesGenerationConfig: boolean;
  readonly hfOverrides: Readonly<Record<string, unknown>>;
  readonly numThreads: number | undefined;
  readonly plugins: readonly string[];
  readonly logitsProcessors: readonly string[];
}

/** Every option's name, so that a misspelt one is an error. */
const optionNames: readonly string[] = [
  'dtype', 'quantization', 'maxModelLen', 'blockSize', 'gpuMemoryUtilization', 'kvCacheMemoryBytes', 'numGpuBlocksOverride', 'maxNumSeqs',
  'maxNumBatchedTokens', 'enablePrefixCaching', 'enableChunkedPrefill', 'longPrefillTokenThreshold', 'schedulingPolicy', 'maxNumWaitingRequests',
  'stepTimeout', 'loadTimeout', 'restartOnDeviceLoss',
  'asyncScheduling', 'watermark', 'seed', 'maxLogprobs', 'logprobsMode', 'skipTokenizerInit', 'servedModelName', 'tokenizer',
  'revision', 'downloadDir', 'device', 'generationConfig', 'hfOverrides', 'numThreads', 'plugins', 'logitsProcessors',
] satisfies readonly (keyof EngineOptions)[]; // prettier-ignore

/** A week. */
const maxSeconds = 604_800;

const dtypeNames: Readonly<Record<string, Dtype | undefined>> = {
  auto: undefined,
  bfloat16: 'bf16',
  float16: 'f16',
  half: 'f16',
  float32: 'f32',
  float: 'f32',
};

/** Checks what was given and completes it. Throws `config.invalid-option`, naming option, value and what was expected. */
export function parseEngineOptions(options: EngineOptions): EngineConfig {
  for (const name of Object.keys(options)) {
    if (!optionNames.includes(name)) throw invalid(name, 'given', `one of ${optionNames.join(', ')}`);
  }
  return {
    dtype: dtypeNames[oneOf('dtype', options.dtype ?? 'auto', Object.keys(dtypeNames))],
    unpacksWeights: oneOf('quantization', options.quantization ?? 'auto', ['auto', 'none']) === 'none',
    maxModelLen:
      options.maxModelLen === -1 || options.maxModelLen === 'auto'
        ? 'auto'
        : count('maxModelLen', options.maxModelLen, 2),
    blockSize: count('blockSize', options.blockSize, 1),
    gpuMemoryUtilization: share('gpuMemoryUtilization', options.gpuMemoryUtilization ?? 0.92, { open: true }),
    kvCacheMemoryBytes: count('kvCacheMemoryBytes', options.kvCacheMemoryBytes, 1),
    numGpuBlocksOverride: count('numGpuBlocksOverride', options.numGpuBlocksOverride, 1),
    maxNumSeqs: count('maxNumSeqs', options.maxNumSeqs, 1),
    maxNumBatchedTokens: count('maxNumBatchedTokens', options.maxNumBatchedTokens, 1),
    enablePrefixCaching: flag('enablePrefixCaching', options.enablePrefixCaching ?? true),
    enableChunkedPrefill: flag('enableChunkedPrefill', options.enableChunkedPrefill ?? true),
    longPrefillTokenThreshold: count('longPrefillTokenThreshold', options.longPrefillTokenThreshold, 0) ?? 0,
    schedulingPolicy: oneOf('schedulingPolicy', options.schedulingPolicy ?? 'fcfs', [
      'fcfs',
      'priority',
    ] as const),
    maxNumWaitingRequests: count('maxNumWaitingRequests', options.maxNumWaitingRequests, 1) ?? Infinity,
    stepTimeout: seconds('stepTimeout', options.stepTimeout),
    loadTimeout: seconds('loadTimeout', options.loadTimeout) ?? 600,
    restartOnDeviceLoss: flag('restartOnDeviceLoss', options.restartOnDeviceLoss ?? false),
    asyncScheduling: flag('asyncScheduling', options.asyncScheduling ?? true),
    watermark: share('watermark', options.watermark ?? 0.01, { open: false }),
    seed: integer('seed', options.seed),
    maxLogprobs: count('maxLogprobs', options.maxLogprobs, -1) ?? 20,
    logprobsMode: oneOf('logprobsMode', options.logprobsMode ?? 'raw_logprobs', [
      'raw_logprobs',
      'processed_logprobs',
    ] as const),
    skipTokenizerInit: flag('skipTokenizerInit', options.skipTokenizerInit ?? false),
    servedModelNames: [options.servedModelName ?? []].flat(),
    tokenizer: options.tokenizer,
    revision: options.revision,
    downloadDir: options.downloadDir,
    device: options.device ?? 'auto',
    usesGenerationConfig:
      oneOf('generationConfig', options.generationConfig ?? 'auto', ['auto', 'vllm', 'tenon']) === 'auto',
    hfOverrides: options.hfOverrides ?? {},
    numThreads: count('numThreads', options.numThreads, 1),
    plugins: options.plugins ?? [],
    logitsProcessors: words('logitsProcessors', options.logitsProcessors ?? []),
  };
}

function invalid(option: string, value: unknown, expected: string): TenonError {
  const shown = typeof value === 'string' ? value : JSON.stringify(value);
  return new TenonError('config.invalid-option', `option ${option} is ${shown}; expected ${expected}`, {
    param: option,
  });
}

function oneOf<T extends string>(option: string, value: string, choices: readonly T[]): T {
  const choice = choices.find((entry) => entry === value);
  if (choice === undefined) throw invalid(option, value, choices.join(', '));
  return choice;
}

function words(option: string, value: readonly string[]): readonly string[] {
  if (Array.isArray(value) && value.every((entry) => typeof entry === 'string')) return value;
  throw invalid(option, value, 'a list of names');
}

function integer(option: string, value: number | undefined): number | undefined {
  if (value === undefined || Number.isSafeInteger(value)) return value;
  throw invalid(option, value, 'an integer');
}

function count(option: string, value: number | undefined, min: number): number | undefined {
  if (value === undefined || (Number.isSafeInteger(value) && value >= min)) return value;
  throw invalid(option, value, `an integer of at least ${min}`);
}

function share(option: string, value: number, { open }: { open: boolean }): number {
  if (typeof value === 'number' && value <= 1 && (open ? value > 0 : value >= 0 && value < 1)) return value;
  throw invalid(option, value, open ? 'a number above 0 and at most 1' : 'a number from 0 to below 1');
}

/** 0 is any time. */
function seconds(option: string, value: number | undefined): number | undefined {
  if (value === 0) return Infinity;
  if (value === undefined || (typeof value === 'number' && value > 0 && value <= maxSeconds)) return value;
  throw invalid(option, value, `0 or seconds up to ${maxSeconds}`);
}

function flag(option: string, value: boolean): boolean {
  if (typeof value === 'boolean') return value;
  throw invalid(option, value, 'true or false');
}
