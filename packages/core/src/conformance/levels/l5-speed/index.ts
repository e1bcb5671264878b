/** Level 5: how fast the kernels are, as shares of what the device was seen to do. Rough figures: nothing fails by them. */
import { dtypeBytes } from '../../../backend/index.js';
import type { ConformanceCase } from '../../case.js';
import type { Kit } from '../../kit.js';
import type { OpProgram } from '../../op-program.js';
import { measure, type Workload } from './measure.js';

type MakeWorkload = (elementBytes: number, tokens: number) => Workload;

/** The first measures the bandwidth, and the second the rate, that the others are held against. */
const workloads: Readonly<Record<string, MakeWorkload>> = {
  'add-copy': (_, tokens) => elementwise('add', 4 * tokens, 3, 1),
  'linear-prefill': (bytes, tokens) => product(bytes, tokens),
  'linear-decode': (bytes) => product(bytes, 1),
  rms_norm: (_, tokens) => elementwise('rms_norm', 4 * tokens, 2, 4),
  gated_act: (_, tokens) => elementwise('gated_act', 4 * tokens, 3, 8),
  'attention-prefill': (bytes, tokens) => attention(bytes, tokens, false),
  'attention-decode': (bytes, tokens) => attention(bytes, tokens, true),
};

export function speedLevel(): ConformanceCase[] {
  return Object.entries(workloads).map(([name, make]) => ({
    name: `L5/speed/${name}`,
    run: (kit) => record(kit, make),
  }));
}

/** With as many tokens as the device computes in little time. */
async function record(kit: Kit, make: MakeWorkload): Promise<void> {
  const bytes = dtypeBytes[kit.device.preferredDtype];
  let workload = make(bytes, 8);
  let microseconds = await measure(kit, workload);
  for (const tokens of [64, 256, 1024]) {
    const larger = make(bytes, tokens);
    const expected = microseconds * Math.max(larger.flops / workload.flops, larger.bytes / workload.bytes);
    if (larger.shape === workload.shape || expected > 20_000) break;
    workload = larger;
    microseconds = await measure(kit, workload);
  }
  const gbPerSecond = workload.bytes / microseconds / 1000;
  const gflops = workload.flops / microseconds / 1000;
  const known = kit.speeds;
  const bandwidth = known.find(({ op }) => op === 'add')?.gbPerSecond ?? gbPerSecond;
  const own = workload.op === 'linear' ? [gflops] : [];
  const rate = Math.max(0, ...own, ...known.filter(({ op }) => op === 'linear').map((each) => each.gflops));
  const shares = { copy: gbPerSecond / bandwidth, linear: rate > 0 ? gflops / rate : 0 };
  const isCopy = shares.copy >= shares.linear;
  known.push({
    op: workload.op,
    shape: workload.shape,
    microseconds,
    gbPerSecond,
    gflops,
    fraction: isCopy ? shares.copy : shares.linear,
    of: isCopy ? 'copy bandwidth' : 'best linear rate',
  });
}

const columns = 4096;

/** Tensors of f32 [tokens, 4096]. */
function elementwise(
  op: 'add' | 'rms_norm' | 'gated_act',
  tokens: number,
  tensors: number,
  flops: number,
): Workload {
  const size = tokens * columns;
  return {
    op,
    shape: `f32[${tokens}, ${columns}]`,
    bytes: 4 * tensors * size,
    flops: flops * size,
    seqs: 1,
    tokens,
    record: (p, times) => {
      const [a, b] = [table(p), table(p)];
      const weight = p.vector('weight', pattern(columns));
      for (let i = 0; i < times; i++) {
        if (op === 'add') p.g.add(a, b);
        else if (op === 'rms_norm') p.g.rmsNorm(a, weight, { eps: 1e-5, dtype: 'f32' });
        else p.g.op('gated_act', { gate: a, up: b }, { activation: 0 }, 'f32');
      }
    },
  };
}

const table = (p: OpProgram) => p.table(columns, pattern(p.vocabSize * columns), 'f32');

/** Matrices of [1024, 1024], each another one. */
function product(elementBytes: number, tokens: number): Workload {
  const [n, k] = [1024, 1024];
  return {
    op: 'linear',
    shape: `[${tokens}, ${k}] × [${n}, ${k}]`,
    bytes: elementBytes * (n * k + tokens * k) + 4 * tokens * n,
    flops: 2 * tokens * n * k,
    seqs: 1,
    tokens,
    record: (p, times) => {
      const x = p.table(k, pattern(p.vocabSize * k), p.g.dtype);
      for (let i = 0; i < times; i++) p.g.linear(x, p.matrix(`w${i}`, n, k, pattern(n * k)));
    },
  };
}

/** 8 query heads on 2 heads of the cache, 64 elements each, with the write to the cache; in as many layers as there are ops. */
function attention(elementBytes: number, tokens: number, decodes: boolean): Workload {
  const [numHeads, numKvHeads, headDim, seqs] = [8, 2, 64, decodes ? 4 : 1];
  const pairs = decodes ? seqs * (tokens + 1) : (tokens * (tokens + 1)) / 2;
  const rows = decodes ? seqs : tokens;
  return {
    op: 'attention',
    shape: decodes ? `${seqs} sequences of ${tokens} tokens, one more each` : `a prompt of ${tokens} tokens`,
    bytes:
      elementBytes * (2 * numKvHeads * headDim * (decodes ? pairs : tokens) + 2 * rows * numHeads * headDim),
    flops: 4 * pairs * numHeads * headDim,
    seqs,
    tokens,
    decodes,
    record: (p, times) => {
      const [k, v] = [p.typed(numKvHeads * headDim), p.typed(numKvHeads * headDim)];
      const q = p.typed(numHeads * headDim);
      for (let i = 0; i < times; i++) {
        const layer = p.g.kvLayer({ numKvHeads, headDim });
        p.g.kvWrite(k, v, layer, { numKvHeads, headDim });
        p.g.attention(q, layer, { numHeads, numKvHeads, headDim, scale: headDim ** -0.5 });
      }
    },
  };
}

/** Numbers of about 1 that cost nothing to make. */
const pattern = (size: number): Float32Array =>
  Float32Array.from({ length: size }, (_, i) => ((i * 37) % 101) / 50 - 1);
