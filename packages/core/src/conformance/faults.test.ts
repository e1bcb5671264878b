/** The kit on the reference backend with one fault each: it is found, at the right level, and the op is named. */
import { describe, expect, it } from 'vitest';
import * as faulty from '../../tests/support/faulty-backend.js';
import type { BackendModule, Counters, OpName } from '../backend/index.js';
import { referenceBackend } from './reference-backend.js';
import { runConformance, type ConformanceOptions } from './run-conformance.js';

interface Fault {
  readonly module: BackendModule;
  /** The cases that are run, of which at least one has to fail. */
  readonly cases: string;
  readonly op?: OpName;
  /** What the first failure says. */
  readonly says?: RegExp;
  readonly options?: ConformanceOptions;
}

const kept: Buffer[] = [];
const { withReferences, wrapped } = faulty;
const lyingCounters = (): Counters => ({
  steps: 1, captures: 0, replays: 0, rebinds: 0, compiles: 0, allocations: 0, fallbacks: 3, hostSyncs: 0,
}); // prettier-ignore

const faults: Readonly<Record<string, Fault>> = {
  'a causal mask that is off by one': { module: withReferences(faulty.strictlyCausal), cases: 'L2/attention/f32/*softCap=0,scale=usual', op: 'attention' },
  'a wrong scale': { module: withReferences(faulty.wrongScale), cases: 'L2/attention/bf16/*softCap=0,scale=usual', op: 'attention' },
  'a soft cap that is missing': { module: withReferences(faulty.noSoftCap), cases: 'L2/attention/f32/*slidingWindow=0,softCap=5*', op: 'attention' },
  'a window that is off by one': { module: withReferences(faulty.widerWindow), cases: 'L2/attention/bf16/*slidingWindow=3*', op: 'attention' },
  'query heads on the wrong KV heads': { module: withReferences(faulty.wrongHeads), cases: 'L2/attention/f32/heads=6/2*', op: 'attention' },
  'a stale page': { module: withReferences(faulty.stalePages()), cases: 'L3/*/reused-pages', says: /in pages that another sequence has left/ },
  'the wrong block of a table': { module: withReferences(faulty.wrongBlock), cases: 'L2/attention/f32/length=*', op: 'attention' },
  'padding that is written to the cache': { module: withReferences(faulty.paddingIsWritten), cases: 'L1/kv_write/*', op: 'kv_write' },
  'a bias that is ignored': { module: withReferences(faulty.noBias), cases: 'L2/linear/f32/*bias=true*', op: 'linear' },
  'a residual that is added twice': { module: withReferences(faulty.residualTwice), cases: 'L2/linear_add/bf16/*', op: 'linear_add' },
  'rounding by truncation': { module: withReferences(faulty.truncatingNorm), cases: 'L2/rms_norm/bf16/*y=typed', op: 'rms_norm' },
  'sums in bf16': { module: withReferences(faulty.bf16Sums), cases: 'L2/linear/bf16/k=64*', op: 'linear' },
  'rotary pairs that are mixed up': { module: withReferences(faulty.mixedUpPairs), cases: 'L2/rope/f32/*', op: 'rope' },
  'a head whose tail is lost': { module: withReferences(faulty.noRotaryTail), cases: 'L2/rope/f16/*', op: 'rope' },
  'eps outside of the root': { module: withReferences(faulty.epsOutsideTheRoot), cases: 'L2/rms_norm/f32/*', op: 'rms_norm' },
  'the last of equal logits': { module: withReferences(faulty.lastOfEquals), cases: 'L2/sample/*/greedy*', op: 'sample' },
  'top-p that goes beyond its sum': { module: faulty.topPBeyond, cases: 'L2/sample/*/top-p*', op: 'sample' },
  'a seed that is ignored': { module: faulty.seedIgnored, cases: 'L2/sample/*/noise*', op: 'sample' },
  'raw logprobs for processed ones': { module: faulty.alwaysRawLogprobs, cases: 'L2/sample/*/logprobs*', op: 'sample' },
  'a race between two steps': { module: faulty.racing(), cases: 'L3/*/steps-in-flight', says: /2 steps in flight/ },
  'a replay with old parameters': { module: faulty.missingRebind(), cases: 'L3/*/capture-equals-eager', says: /with capture keys/ },
  'padding that is felt': { module: withReferences(faulty.activePadding), cases: 'L3/llama/padding-is-inert', says: /with more padding/ },
  'a false claim of batch invariance': { module: withReferences(faulty.batchDependent), cases: 'L3/llama/alone-equals-together', says: /batchInvariant is claimed/ },
  'a leak': {
    module: wrapped({ open: () => kept.push(Buffer.alloc(1_000_000, 1)) }),
    cases: 'L1/memory/open-and-close', says: /holds 9[678]\d KiB more/,
  },
  'a write behind the result': {
    module: wrapped({ executable: (real) => ({
      run(step, result) {
        new Int32Array(result.buffer, result.byteOffset + result.byteLength, 1)[0] = 7;
        real.run(step, result);
      },
    }) }),
    cases: 'L2/add/f32/columns=1,*', op: 'add', says: /written outside of its buffers, at words 0/,
  },
  'a step that is changed': {
    module: wrapped({ executable: (real) => ({
      run(step, result) {
        step[step.length - 1] = 9;
        real.run(step, result);
      },
    }) }),
    cases: 'L2/add/f32/columns=1,*', op: 'add', says: /of the step itself was changed/,
  },
  'a kernel that is not there': {
    module: wrapped({ executable: () => ({ counters: lyingCounters }) }),
    cases: 'L2/rope/f32/*', op: 'rope', says: /ran elsewhere than negotiation said/,
  },
  'a refusal without a reason': {
    module: wrapped({ group: (real) => ({
      negotiate: async (request) => {
        const { answers, batchInvariant } = await real.negotiate(request);
        const refused = { support: 'unsupported', kernel: '' } as const;
        return { batchInvariant, answers: answers.map((answer, i) => (request.ops[i]!.op === 'gated_act' ? refused : answer)) };
      },
    }) }),
    cases: 'L2/negotiate/answers', op: 'gated_act', says: /no reason is given/,
  },
  'blocks that are said to be smaller': {
    module: wrapped({ group: (real) => ({ kvBlockBytes: (layer, blockSize) => real.kvBlockBytes(layer, blockSize) / 8 }) }),
    cases: 'L1/memory/kv-block-bytes', says: /keys and values alone take/,
  },
  'a block size that is not kept': {
    module: wrapped({ group: (real) => ({
      load: (plan, weights, options) => real.load({ ...plan, limits: { ...plan.limits, blockSize: 16, numBlocks: 4096 } }, weights, options),
    }) }),
    cases: 'L2/attention/f32/block-size-1', op: 'attention',
  },
  'fewer steps in flight than it says': {
    module: wrapped({ group: (real) => ({ constraints: { ...real.constraints, stepsInFlight: 3 } }) }),
    cases: 'L3/llama/steps-in-flight', says: /more than 2 steps in flight/,
  },
  'too little memory, told as another error': {
    module: wrapped({ group: (real) => ({
      load: (plan, weights, options) => real.load(plan, weights, options).catch(() => Promise.reject(new Error('malloc'))),
    }) }),
    cases: 'L1/memory/out-of-memory', says: /expected backend\.out-of-memory/,
  },
  'a step that never ends': {
    module: wrapped({ executable: () => ({ run: () => {} }) }),
    cases: 'L2/add/f32/columns=1,*', op: 'add', says: /did not end within 0.2 s/, options: { caseTimeoutSeconds: 0.2 },
  },
  'unknown devices that are opened': {
    module: { ...referenceBackend, create: (host) => {
      const backend = referenceBackend.create(host);
      return { info: backend.info, devices: () => backend.devices(), open: (_, options) => backend.open(['reference:0'], options) };
    } },
    cases: 'L0/backend/unknown-device', says: /expected config\.device-not-found/,
  },
}; // prettier-ignore

describe('the conformance kit finds', () => {
  it.each(Object.entries(faults))('%s', async (_, { module, cases, op, says, options }) => {
    const { failures } = await runConformance(module, { case: cases, ...options });
    expect(failures.length).toBeGreaterThan(0);
    expect(failures[0]!.op).toBe(op);
    if (says !== undefined) expect(failures[0]!.message).toMatch(says);
    const sound = await runConformance(referenceBackend, { case: failures[0]!.case });
    expect(sound.failures).toEqual([]);
  });
});

it('lets the reference backend pass: what it says, memory, a family, serving', async () => {
  for (const options of [{ levels: [0, 1, 4] }, { case: 'L3/mistral/*' }] as const) {
    const { failures, levels } = await runConformance(referenceBackend, options);
    expect(failures).toEqual([]);
    expect(levels.every(({ passed }) => passed > 0)).toBe(true);
  }
});
