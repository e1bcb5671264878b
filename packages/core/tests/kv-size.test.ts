/** A KV cache of what a device has left once all else is there. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { BackendModule, LoadOptions } from '../src/backend/index.js';
import type { EngineOptions } from '../src/config/engine-options.js';
import { createNullBackend } from '../src/conformance/null-backend.js';
import { LLM } from '../src/llm.js';

const model = join(import.meta.dirname, 'goldens', 'llama');
const memoryBytes = 2 ** 30;

/** A device of a GiB that finds room for so many blocks, and what it was told. */
function deviceWithRoomFor(numBlocks: number | undefined): { module: BackendModule; told: LoadOptions[] } {
  const inner = createNullBackend({ memoryBytes });
  const told: LoadOptions[] = [];
  const create: BackendModule['create'] = (host) => {
    const backend = inner.create(host);
    return {
      info: backend.info,
      devices: () => backend.devices(),
      open: async (...args) => {
        const group = await backend.open(...args);
        const loadPlan = group.load.bind(group);
        const load: typeof group.load = async (plan, weights, options) => {
          told.push(options);
          const executable = await loadPlan(plan, weights, options);
          return Object.assign(executable, numBlocks !== undefined && { numBlocks });
        };
        return Object.assign(group, { load });
      },
    };
  };
  return { module: { api: inner.api, create }, told };
}

async function load(numBlocks: number | undefined, options: EngineOptions) {
  const { module, told } = deviceWithRoomFor(numBlocks);
  await using llm = await LLM.load(
    model,
    { skipTokenizerInit: true, maxNumSeqs: 4, ...options },
    { backend: module },
  );
  await llm.generate([[1, 2, 3]], { maxTokens: 40, ignoreEos: true });
  return { info: llm.engine.info, spareBytes: told[0]!.spareBytes };
}

describe('a KV cache of what is left', () => {
  it('leaves the rest of gpuMemoryUtilization free, and has the blocks that the device found room for', async () => {
    const { info, spareBytes } = await load(6, { maxModelLen: 64, gpuMemoryUtilization: 0.75 });
    expect(spareBytes).toBe(memoryBytes / 4);
    expect(info).toMatchObject({ numBlocks: 6, maxModelLen: 64 });
    expect(info.kvBytes % 6).toBe(0);
  });

  it('has those of the plan where the device does not say', async () => {
    expect((await load(undefined, { maxModelLen: 64 })).info.numBlocks).toBe(4 * 4);
  });

  it('stops before serving where the longest sequence does not fit; auto is shortened', async () => {
    await expect(load(3, { maxModelLen: 64 })).rejects.toThrow(
      /maxModelLen 64 needs .* the longest that fits is 48/,
    );
    expect((await load(3, { maxModelLen: 'auto' })).info.maxModelLen).toBe(48);
  });

  it('is not asked for where its size was given', async () => {
    expect((await load(undefined, { maxModelLen: 64, numGpuBlocksOverride: 9 })).spareBytes).toBeUndefined();
  });
});
