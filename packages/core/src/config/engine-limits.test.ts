import { describe, expect, it } from 'vitest';
import type { SchedulingConstraints } from '../backend/index.js';
import { resolveKvSize, resolveStepLimits, resolveStepTimeoutMs, type MemoryNeeds } from './engine-limits.js';
import { parseEngineOptions } from './engine-options.js';

const gib = 2 ** 30;
const needs: MemoryNeeds = {
  device: { id: 'npu:0', class: 'npu', freeBytes: 16 * gib, memoryIsShared: true },
  weightsBytes: gib,
  arenaBytes: 2 ** 26,
  blockBytes: 2 ** 20,
  blockSize: 16,
  maxNumSeqs: 128,
  modelLength: 8192,
};
const constraints: SchedulingConstraints = {
  blockSizes: [16, 32],
  tokenBuckets: [],
  mixedPrefillDecode: true,
  stepsInFlight: 2,
  preferredBatchedTokens: 512,
  preferredSeqs: 128,
};

describe('parseEngineOptions', () => {
  it('names option, value and what was expected', () => {
    expect(() => parseEngineOptions({ dtype: 'int3' })).toThrow(
      'option dtype is int3; expected auto, bfloat16, float16, half, float32, float',
    );
    expect(() => parseEngineOptions({ maxNumSeqs: 0 })).toThrow(
      'option maxNumSeqs is 0; expected an integer of at least 1',
    );
    expect(() => parseEngineOptions({ gpuMemoryUtilization: 1.2 })).toThrow(
      'gpuMemoryUtilization is 1.2; expected a number above 0 and at most 1',
    );
    expect(() => parseEngineOptions({ maxNumSeq: 3 } as never)).toThrow(
      /option maxNumSeq is given|expected one of/,
    );
    expect(() => parseEngineOptions({ schedulingPolicy: 'random' })).toThrow('expected fcfs, priority');
  });

  it('takes -1 and auto as the longest length that fits', () => {
    expect(parseEngineOptions({ maxModelLen: -1 }).maxModelLen).toBe('auto');
    expect(parseEngineOptions({ maxModelLen: 'auto' }).maxModelLen).toBe('auto');
  });
});

describe('resolveStepLimits', () => {
  it("takes the device's defaults and stays within its limits", () => {
    expect(resolveStepLimits(parseEngineOptions({}), constraints, 8192)).toMatchObject({
      blockSize: 16,
      maxNumSeqs: 128,
      maxNumBatchedTokens: 512,
      stepsInFlight: 2,
    });
    const tight = { ...constraints, maxSeqs: 4, tokenBuckets: [4, 64] };
    expect(resolveStepLimits(parseEngineOptions({}), tight, 8192)).toMatchObject({
      maxNumSeqs: 4,
      maxNumBatchedTokens: 64,
    });
    expect(() => resolveStepLimits(parseEngineOptions({ maxNumSeqs: 5 }), tight, 8192)).toThrow(
      'option maxNumSeqs is 5; expected at most 4 on this device',
    );
    expect(() => resolveStepLimits(parseEngineOptions({ blockSize: 8 }), tight, 8192)).toThrow(
      'expected one that the device takes: 16, 32',
    );
  });

  it('reads as much less of a prompt as the device prefers while others are answered', () => {
    const limits = (preferredPromptTokensBesideDecodes?: number, maxNumBatchedTokens?: number) =>
      resolveStepLimits(
        parseEngineOptions({ maxNumBatchedTokens }),
        { ...constraints, ...(preferredPromptTokensBesideDecodes && { preferredPromptTokensBesideDecodes }) },
        8192,
      ).maxPromptTokensBesideDecodes;
    expect([limits(128), limits(128, 2000), limits()]).toEqual([128, 500, Infinity]);
  });

  it('gives every sequence a token per step, and whole prompts room when they may not be split', () => {
    expect(() =>
      resolveStepLimits(parseEngineOptions({ maxNumBatchedTokens: 64 }), constraints, 8192),
    ).toThrow(/at least maxNumSeqs \(128\)/);
    const whole = parseEngineOptions({ enableChunkedPrefill: false });
    expect(resolveStepLimits(whole, constraints, 8192).maxNumBatchedTokens).toBe(8192);
  });
});

describe('resolveKvSize', () => {
  it("leaves most of a computer's memory to others, and takes an accelerator's", () => {
    expect(resolveKvSize(parseEngineOptions({}), needs).numBlocks).toBe(2048);
    const large = { ...needs, device: { ...needs.device, freeBytes: 512 * gib } };
    expect(resolveKvSize(parseEngineOptions({}), large).numBlocks).toBe(32 * 1024);
    const older = { ...needs, device: { ...needs.device, class: 'cpu', memoryIsShared: undefined } } as const;
    expect(resolveKvSize(parseEngineOptions({}), older).numBlocks).toBe(2048);
    const own = { ...needs, device: { ...needs.device, memoryIsShared: false } };
    expect(resolveKvSize(parseEngineOptions({}), own).numBlocks).toBe(
      Math.floor(16 * 1024 * 0.92 - 1024 - 64),
    );
  });

  it('takes no more than all sequences at full length can use, and at least one sequence', () => {
    expect(resolveKvSize(parseEngineOptions({ maxModelLen: 64 }), needs).numBlocks).toBe(128 * 4);
    const long = { ...needs, modelLength: 65_536 };
    expect(resolveKvSize(parseEngineOptions({}), long)).toEqual({ numBlocks: 4096, maxModelLen: 65_536 });
  });

  it('obeys a given size in bytes or blocks', () => {
    expect(resolveKvSize(parseEngineOptions({ kvCacheMemoryBytes: 600 * 2 ** 20 }), needs).numBlocks).toBe(
      600,
    );
    expect(resolveKvSize(parseEngineOptions({ numGpuBlocksOverride: 777 }), needs).numBlocks).toBe(777);
  });

  it('says how much a length needs, how much there is, and what fits; auto takes that', () => {
    const config = parseEngineOptions({ maxModelLen: 8000, numGpuBlocksOverride: 100 });
    expect(() => resolveKvSize(config, needs)).toThrow(
      expect.objectContaining({
        code: 'config.max-model-len',
        message: expect.stringMatching(
          /maxModelLen 8000 needs 500.0 MiB of KV cache, but there are 100.0 MiB; the longest that fits is 1600/,
        ),
      }),
    );
    expect(
      resolveKvSize(parseEngineOptions({ maxModelLen: 'auto', numGpuBlocksOverride: 100 }), needs)
        .maxModelLen,
    ).toBe(1600);
    expect(() => resolveKvSize(parseEngineOptions({ maxModelLen: 9000 }), needs)).toThrow(
      /positions end at 8192/,
    );
  });

  it('refuses a model whose weights do not fit, with both numbers', () => {
    const small = { ...needs, device: { ...needs.device, freeBytes: gib } };
    expect(() => resolveKvSize(parseEngineOptions({}), small)).toThrow(
      expect.objectContaining({
        code: 'capacity.memory',
        message: expect.stringMatching(
          /1024.0 MiB for weights and 64.0 MiB for activations, but only 942.1 MiB/,
        ),
      }),
    );
  });
});

describe('resolveStepTimeoutMs', () => {
  const slow = 5e9;
  const timeout = (
    slowestOperationsPerSecond: number | undefined,
    numWeights: number,
    stepTimeout?: number,
  ): number =>
    resolveStepTimeoutMs(
      parseEngineOptions({ stepTimeout }),
      { slowestOperationsPerSecond, maxNumBatchedTokens: 512 },
      numWeights,
    );

  it('is a minute, and on a slow device as much more as a large model may need', () => {
    expect(timeout(undefined, 8e9)).toBe(60_000);
    expect(timeout(slow, 6e6) / 60_000).toBeCloseTo(1, 1);
    expect(timeout(slow, 8e9) / 60_000).toBeGreaterThan(20);
  });

  it('is what was asked for, 0 being for ever', () => {
    expect(timeout(slow, 8e9, 2.5)).toBe(2500);
    expect(timeout(slow, 8e9, 0)).toBe(Infinity);
    expect(() => timeout(slow, 8e9, -1)).toThrow(
      'option stepTimeout is -1; expected 0 or seconds up to 604800',
    );
  });
});
