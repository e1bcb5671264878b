/**
 * A backend that is a compiler: it takes the whole plan in `load`, and generates one function per shape of step. What a TPU or Neuron
 * backend does with an XLA compiler is done here with JavaScript source, so that every part can be read and run anywhere.
 *
 * What it asks of core, all as data: few shapes (buckets), a warm-up that compiles them before anything is served, and a KV cache in
 * which each sequence lies in one piece.
 */
import { freemem, totalmem } from 'node:os';
import { Executable } from './executable.js';
import { reasonAgainst } from './generate.js';

/** @type {import('@tenon/core/backend').SchedulingConstraints} */
const constraints = {
  blockSizes: [16],
  kvLayout: 'slots',
  tokenBuckets: [16, 64, 256],
  decodeBuckets: [1, 2, 4, 8],
  mixedPrefillDecode: false,
  stepsInFlight: 1,
  preferredBatchedTokens: 256,
  preferredSeqs: 8,
  warmup: true,
};

/** @implements {import('@tenon/core/backend').DeviceGroup} */
class Group {
  constraints = constraints;

  /** K and V of one layer, f32. */
  kvBlockBytes({ numKvHeads, headDim }, blockSize) {
    return 2 * 4 * numKvHeads * headDim * blockSize;
  }

  /** Fused ops are taken apart by core: a compiler sees through them itself. */
  async negotiate({ ops }) {
    const answers = ops.map((op) => {
      const reason = reasonAgainst(op);
      if (reason === undefined) return { support: 'native', kernel: `generated ${op.op}` };
      return {
        support: op.op.includes('linear_') || op.op === 'qkv_rope_kv_write' ? 'decompose' : 'unsupported',
        kernel: '',
        reason,
      };
    });
    return { answers, batchInvariant: true };
  }

  async load(plan, source, options) {
    const weights = [];
    for (const weight of plan.weights) {
      weights.push(await readWeight(weight, source));
      options.onProgress?.(weights.length, plan.weights.length);
    }
    return new Executable(plan, weights, options.onStepDone);
  }

  async close() {}
}

/** The parts one after another: they are concatenated along rows. */
async function readWeight({ parts, data }, source) {
  if (data !== undefined) return data;
  const pieces = await Promise.all(parts.map((part) => source.read(part)));
  const values = new Float32Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    values.set(piece, at);
    at += piece.length;
  }
  return values;
}

/** @type {import('@tenon/core/backend').Backend} */
const backend = {
  info: { id: 'codegen', owner: 'example', version: '0.1.0', runtime: { compiler: 'JavaScript source' } },
  async devices() {
    const memory = { memoryBytes: totalmem(), freeBytes: freemem(), memoryIsShared: true };
    const types = { dtypes: ['f32'], preferredDtype: 'f32' };
    return [
      { id: 'codegen:0', class: 'other', name: 'generated JavaScript', usable: true, ...memory, ...types },
    ];
  },
  async open(deviceIds) {
    if (deviceIds.length === 1 && deviceIds[0] === 'codegen:0') return new Group();
    const message = `no devices ${deviceIds}; this backend has codegen:0`;
    throw Object.assign(new Error(message), { code: 'config.device-not-found' });
  },
};

/** @type {import('@tenon/core/backend').BackendModule} */
export default { api: { major: 1, minor: 1, features: [] }, create: () => backend };
