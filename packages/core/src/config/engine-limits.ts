/** Sizes of a run: how many tokens, sequences and KV blocks, from the options, the device's constraints and its memory. */
import type { DeviceInfo, SchedulingConstraints } from '../backend/index.js';
import { TenonError } from '../errors.js';
import type { EngineConfig } from './engine-options.js';

const gib = 2 ** 30;
const defaultMaxNumSeqs = 256;

export interface StepLimits {
  readonly blockSize: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  /** Tokens of prompts at most where requests that are answering wait for the step. */
  readonly maxPromptTokensBesideDecodes: number;
  readonly longPrefillTokenThreshold: number;
  /** Of the device; absent: steps take seconds at most. */
  readonly slowestOperationsPerSecond: number | undefined;
  readonly enableChunkedPrefill: boolean;
  readonly stepsInFlight: number;
}

/** What one step may hold. `maxModelLen` is known, or the model's own length where it is `auto`. */
export function resolveStepLimits(
  config: EngineConfig,
  constraints: SchedulingConstraints,
  maxModelLen: number,
): StepLimits {
  const mostSeqs = Math.min(constraints.maxSeqs ?? Infinity, constraints.decodeBuckets?.at(-1) ?? Infinity);
  const maxNumSeqs =
    atMost('maxNumSeqs', config.maxNumSeqs, mostSeqs) ??
    Math.min(constraints.preferredSeqs ?? defaultMaxNumSeqs, mostSeqs);
  const mostTokens = Math.min(constraints.maxTokens ?? Infinity, constraints.tokenBuckets.at(-1) ?? Infinity);
  const enableChunkedPrefill = config.enableChunkedPrefill && constraints.chunkedPrefill !== false;
  const preferred = Math.max(constraints.preferredBatchedTokens, maxNumSeqs);
  const wholePrompts = enableChunkedPrefill ? preferred : Math.max(preferred, maxModelLen);
  const maxNumBatchedTokens =
    atMost('maxNumBatchedTokens', config.maxNumBatchedTokens, mostTokens) ??
    Math.min(wholePrompts, mostTokens);
  if (maxNumBatchedTokens < maxNumSeqs) {
    throw invalid(
      'maxNumBatchedTokens',
      maxNumBatchedTokens,
      `at least maxNumSeqs (${maxNumSeqs}), so that every sequence gets a token per step`,
    );
  }
  if (!enableChunkedPrefill && maxNumBatchedTokens < maxModelLen)
    throw tooShortForPrompts(config, maxNumBatchedTokens, maxModelLen, mostTokens);
  return {
    blockSize: chooseBlockSize(config.blockSize, constraints, maxModelLen),
    maxNumSeqs,
    maxNumBatchedTokens,
    maxPromptTokensBesideDecodes: promptTokensBesideDecodes(constraints, maxNumBatchedTokens),
    longPrefillTokenThreshold: minChunk(config.longPrefillTokenThreshold, constraints.mixedPrefillDecode),
    slowestOperationsPerSecond: constraints.slowestOperationsPerSecond,
    enableChunkedPrefill,
    stepsInFlight: config.asyncScheduling ? constraints.stepsInFlight : 1,
  };
}

/** The part of a step that the device prefers, of steps of any size (docs/decisions/0013). */
function promptTokensBesideDecodes(
  { preferredPromptTokensBesideDecodes, preferredBatchedTokens }: SchedulingConstraints,
  maxNumBatchedTokens: number,
): number {
  if (preferredPromptTokensBesideDecodes === undefined) return Infinity;
  return Math.ceil((maxNumBatchedTokens * preferredPromptTokensBesideDecodes) / preferredBatchedTokens);
}

/** Where prompts and single tokens don't mix, a chunk of one token would count as the latter. */
function minChunk(threshold: number, mixed: boolean): number {
  return threshold === 0 || mixed ? threshold : Math.max(2, threshold);
}

/** Whole prompts need steps that hold the longest. */
function tooShortForPrompts(
  config: EngineConfig,
  maxNumBatchedTokens: number,
  maxModelLen: number,
  mostTokens: number,
): TenonError {
  const why = config.enableChunkedPrefill ? 'the device computes prompts whole' : 'chunked prefill is off';
  if (mostTokens < maxModelLen && config.maxNumBatchedTokens === undefined)
    return invalid(
      'maxModelLen',
      maxModelLen,
      `at most ${mostTokens}, the most tokens of a step on this device, as ${why}`,
    );
  return invalid(
    'maxNumBatchedTokens',
    maxNumBatchedTokens,
    `at least maxModelLen (${maxModelLen}), as ${why}`,
  );
}

/** With slots, a block holds the longest sequence. */
function chooseBlockSize(
  wanted: number | undefined,
  { blockSizes: accepted, kvLayout }: SchedulingConstraints,
  maxModelLen: number,
): number {
  const first = accepted[0] ?? 16;
  if (kvLayout === 'slots') {
    if (wanted === undefined) return Math.ceil(maxModelLen / first) * first;
    throw invalid(
      'blockSize',
      wanted,
      'none, as the device keeps each sequence in one piece; set maxModelLen',
    );
  }
  if (wanted === undefined) return first;
  if (!accepted.includes(wanted))
    throw invalid('blockSize', wanted, `one that the device takes: ${accepted.join(', ')}`);
  return wanted;
}

function atMost(option: string, value: number | undefined, most: number | undefined): number | undefined {
  if (value !== undefined && most !== undefined && value > most)
    throw invalid(option, value, `at most ${most} on this device`);
  return value;
}

const baseTimeoutMs = 60_000;

/**
 * Milliseconds after which a step counts as hung. A step takes about 2 operations per weight and token: minutes for a large
 * model on a slow device.
 */
export function resolveStepTimeoutMs(
  { stepTimeout }: Pick<EngineConfig, 'stepTimeout'>,
  limits: Pick<StepLimits, 'slowestOperationsPerSecond' | 'maxNumBatchedTokens'>,
  numWeights: number,
): number {
  if (stepTimeout !== undefined) return stepTimeout * 1000;
  if (limits.slowestOperationsPerSecond === undefined) return baseTimeoutMs;
  const operations = 2 * numWeights * limits.maxNumBatchedTokens;
  return baseTimeoutMs + (1000 * operations) / limits.slowestOperationsPerSecond;
}

export interface MemoryNeeds {
  readonly device: Pick<DeviceInfo, 'id' | 'class' | 'freeBytes' | 'memoryIsShared'>;
  readonly weightsBytes: number;
  /** Activations of one step. */
  readonly arenaBytes: number;
  /** KV bytes of one block, all layers together. */
  readonly blockBytes: number;
  readonly blockSize: number;
  readonly maxNumSeqs: number;
  /** The model's own length. */
  readonly modelLength: number;
}

export interface KvSize {
  readonly numBlocks: number;
  readonly maxModelLen: number;
}

export interface KvSizeWanted extends KvSize {
  /**
   * Given: the number of blocks is the most there may be, as what the device takes besides weights and activations is not known yet; so
   * much of its memory is to stay free.
   */
  readonly spareBytes?: number;
}

/**
 * Blocks of the KV cache and the longest sequence. A given length must fit; `auto` takes the longest that does.
 * Throws `capacity.memory` when not even a block fits, `config.max-model-len` when the length does not.
 */
export function resolveKvSize(config: EngineConfig, needs: MemoryNeeds): KvSizeWanted {
  const wanted = wantedLength(config, needs);
  const isGiven = config.numGpuBlocksOverride !== undefined || config.kvCacheMemoryBytes !== undefined;
  const numBlocks =
    config.numGpuBlocksOverride ?? chooseNumBlocks(config, needs, Math.ceil(wanted / needs.blockSize));
  const size = fitKvSize(config, needs, numBlocks);
  if (isGiven || isShared(needs.device)) return size;
  return { ...size, spareBytes: Math.ceil(needs.device.freeBytes * (1 - config.gpuMemoryUtilization)) };
}

/** Blocks there are, and the longest sequence that they hold. Throws as `resolveKvSize` does. */
export function fitKvSize(config: EngineConfig, needs: MemoryNeeds, numBlocks: number): KvSize {
  const wanted = wantedLength(config, needs);
  const blocksPerSequence = Math.ceil(wanted / needs.blockSize);
  if (numBlocks >= blocksPerSequence) return { numBlocks, maxModelLen: wanted };
  const longest = numBlocks * needs.blockSize;
  if (config.maxModelLen === 'auto' && longest >= 2) return { numBlocks, maxModelLen: longest };
  throw tooLong(wanted, blocksPerSequence, numBlocks, needs);
}

function wantedLength(config: EngineConfig, needs: MemoryNeeds): number {
  const wanted =
    config.maxModelLen === 'auto' ? needs.modelLength : (config.maxModelLen ?? needs.modelLength);
  if (wanted > needs.modelLength) {
    throw new TenonError(
      'config.max-model-len',
      `maxModelLen is ${wanted}, but the model's positions end at ${needs.modelLength}; lower it, or change max_position_embeddings or rope scaling with hfOverrides`,
      { param: 'maxModelLen' },
    );
  }
  return wanted;
}

function chooseNumBlocks(config: EngineConfig, needs: MemoryNeeds, blocksPerSequence: number): number {
  if (config.kvCacheMemoryBytes !== undefined)
    return Math.floor(config.kvCacheMemoryBytes / needs.blockBytes);
  const { device, weightsBytes, arenaBytes, blockBytes, maxNumSeqs } = needs;
  const available = Math.floor(device.freeBytes * config.gpuMemoryUtilization) - weightsBytes - arenaBytes;
  if (available < blockBytes) throw noRoom(config, needs);
  const useful = maxNumSeqs * blocksPerSequence;
  const fitting = Math.floor(available / blockBytes);
  return Math.min(fitting, useful, Math.max(blocksPerSequence, defaultBlocks(needs)));
}

/** An accelerator's memory is ours; a computer's is others' too (docs/decisions/0006-kv-cache-size.md). */
function defaultBlocks({ device, blockBytes }: MemoryNeeds): number {
  if (!isShared(device)) return Infinity;
  return Math.floor(Math.max(2 * gib, device.freeBytes / 16) / blockBytes);
}

/** Backends of contract 1.0 say the class alone. */
const isShared = (device: MemoryNeeds['device']): boolean => device.memoryIsShared ?? device.class === 'cpu';

function noRoom(config: EngineConfig, { device, weightsBytes, arenaBytes }: MemoryNeeds): TenonError {
  const usable = device.freeBytes * config.gpuMemoryUtilization;
  const message =
    `the model needs ${mib(weightsBytes)} for weights and ${mib(arenaBytes)} for activations, but only ${mib(usable)} of ${device.id}'s memory ` +
    `can be used (${mib(device.freeBytes)} free, gpuMemoryUtilization ${config.gpuMemoryUtilization}); free memory, or choose a smaller model or dtype`;
  return new TenonError('capacity.memory', message);
}

function tooLong(wanted: number, needed: number, numBlocks: number, needs: MemoryNeeds): TenonError {
  const longest = numBlocks * needs.blockSize;
  const remedy =
    longest === 0
      ? `not even one block of ${mib(needs.blockBytes)} fits: give the KV cache more memory`
      : `the longest that fits is ${longest}: set maxModelLen to that or to 'auto', or give the KV cache more memory`;
  const message = `maxModelLen ${wanted} needs ${mib(needed * needs.blockBytes)} of KV cache, but there are ${mib(numBlocks * needs.blockBytes)}; ${remedy}`;
  return new TenonError('config.max-model-len', message, { param: 'maxModelLen' });
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function invalid(option: string, value: unknown, expected: string): TenonError {
  return new TenonError(
    'config.invalid-option',
    `option ${option} is ${String(value)}; expected ${expected}`,
    { param: option },
  );
}
