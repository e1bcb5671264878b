import { describe, expect, it } from 'vitest';
import {
  encodePlan, ops, planMagic, type CheckpointDtype, type DeviceGroup, type OpName, type Plan, type PlanTensor,
  type TensorLocation, type WeightScheme,
} from '../backend/index.js'; // prettier-ignore
import { createReferenceBackend, type ReferenceBackendOptions } from '../conformance/index.js';
import { TenonError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import { buildPlan, type BuiltPlan } from './build-plan.js';
import { explain, explainRows, formatBytes, planBytes, weightBytes } from './explain.js';

const config: ModelConfig = {
  architecture: 'LlamaForCausalLM',
  vocabSize: 100,
  hiddenSize: 16,
  numLayers: 3,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 8,
  intermediateSize: 24,
  activation: 'silu',
  rmsNormEps: 1e-6,
  maxPositionEmbeddings: 128,
  ropeTheta: 10000,
  ropeScaling: { type: 'default' },
  rotaryDim: 8,
  ropeInterleaved: false,
  tieWordEmbeddings: false,
  qkvBias: false,
  attentionOutputBias: false,
  mlpBias: false,
  slidingWindows: [0, 0, 0],
  checkpointDtype: 'bf16',
  bosTokenId: undefined,
  eosTokenIds: [],
};
const limits = {
  maxTokens: 50,
  maxSeqs: 4,
  maxLogitRows: 50,
  maxModelLen: 128,
  blockSize: 16,
  numBlocks: 8,
  vocabSize: 100,
};

async function build(
  changes: Partial<ModelConfig> = {},
  options: ReferenceBackendOptions = {},
  dtype: 'f32' | 'bf16' = 'bf16',
): Promise<BuiltPlan> {
  const group = await createReferenceBackend(options)
    .create({ log: () => {} })
    .open(['reference:0'], {});
  return buildPlan({ ...config, ...changes }, dtype, group, limits);
}

const countOf = (plan: Plan, name: OpName): number => plan.ops.filter((op) => op.op === name).length;
const opsOf = (plan: Plan): string[] => plan.ops.map((op) => op.op);

describe('fusion', () => {
  it('leaves the fewest ops where the device has kernels for the fused ones', async () => {
    const { plan } = await build();
    const layer = [
      'rms_norm',
      'linear',
      'qkv_rope_kv_write',
      'attention',
      'linear_add',
      'rms_norm',
      'linear_gated',
      'linear_add',
    ];
    const lastLayer = layer.toSpliced(4, 0, 'gather_rows', 'gather_rows');
    const head = ['rms_norm', 'linear', 'sample'];
    expect(opsOf(plan)).toEqual(['rope_cos_sin', 'embedding', ...layer, ...layer, ...lastLayer, ...head]);
  });

  it('computes logit rows only, from the last attention on', async () => {
    const { plan } = await build();
    const last = plan.ops.findLastIndex((op) => op.op === 'attention');
    const rowsOf = (op: Plan['ops'][number]) => plan.tensors[op.outputs[0]!]!.dims[0];
    expect(plan.ops.slice(0, last + 1).every((op) => rowsOf(op) !== 'L')).toBe(true);
    expect(plan.ops.slice(last + 1).every((op) => rowsOf(op) === 'L')).toBe(true);
  });

  it('joins the weights that are read together, in order', async () => {
    const { plan } = await build({ qkvBias: true });
    const qkv = plan.weights.find(
      (weight) => weight.name === 'model.layers.1.self_attn.{q_proj,k_proj,v_proj}.weight',
    )!;
    expect(qkv.parts).toEqual(['q', 'k', 'v'].map((part) => `model.layers.1.self_attn.${part}_proj.weight`));
    expect(qkv).toMatchObject({ shape: [64, 16], dtype: 'bf16', uses: ['linear'] });
    const bias = plan.weights.find(
      (weight) => weight.name === 'model.layers.1.self_attn.{q_proj,k_proj,v_proj}.bias',
    )!;
    expect(bias).toMatchObject({ shape: [64], dtype: 'f32', uses: ['vector'] });
    const gated = plan.weights.find((weight) => weight.uses.includes('linear_gated'))!;
    expect(gated).toMatchObject({
      shape: [48, 16],
      parts: ['gate', 'up'].map((part) => `model.layers.0.mlp.${part}_proj.weight`),
    });
    expect(new Set(plan.weights.flatMap((weight) => weight.parts)).size).toBe(
      plan.weights.flatMap((weight) => weight.parts).length,
    );
  });

  it('takes the norms of q and k into the fused op', async () => {
    const { plan } = await build({ architecture: 'Qwen3ForCausalLM' });
    expect(countOf(plan, 'rms_norm')).toBe(2 * 3 + 1);
    const fusedOp = plan.ops.find((op) => op.op === 'qkv_rope_kv_write')!;
    const norms = [2, 3].map((i) => plan.tensors[fusedOp.inputs[i]!] as PlanTensor & { kind: 'weight' });
    expect(norms.map((norm) => plan.weights[norm.weight]!.name)).toEqual(
      ['q', 'k'].map((part) => `model.layers.0.self_attn.${part}_norm.weight`),
    );
    expect(fusedOp.attrs.eps).toBe(1e-6);
  });

  it.each<OpName>(['linear_add', 'linear_gated', 'qkv_rope_kv_write'])(
    'runs the parts of %s where it is refused',
    async (name) => {
      const { plan, negotiation } = await build({}, { refuse: { [name]: 'no such kernel' } });
      expect(countOf(plan, name)).toBe(0);
      expect(negotiation.declined).toEqual([{ op: name, reason: 'no such kernel' }]);
      for (const other of ['linear_add', 'linear_gated', 'qkv_rope_kv_write'] as const) {
        if (other !== name) expect(countOf(plan, other)).toBeGreaterThan(0);
      }
    },
  );

  it('fails with every op that the device lacks, and why', async () => {
    const refuse = { attention: 'no paged kernel', embedding: 'no gather' };
    const error: TenonError = await build({}, { refuse }).then(() => Promise.reject(new Error('built')), (reason) => reason); // prettier-ignore
    expect(error.code).toBe('unsupported.op');
    expect(error.message).toContain('2 op(s)');
    expect(error.message).toContain('no paged kernel');
    expect(error.message).toContain('embedding (i32, bf16, f32): no gather');
  });
});

/** Where tensors of these formats would be, by the last part of their names' stems. */
function locationsOf(
  formats: Readonly<Record<string, CheckpointDtype>>,
): ReadonlyMap<string, TensorLocation> {
  const names = ['model.embed_tokens', 'lm_head'].concat(
    [0, 1, 2].flatMap((i) => [
      ...['q', 'k', 'v', 'o'].map((part) => `model.layers.${i}.self_attn.${part}_proj`),
      ...['gate', 'up', 'down'].map((part) => `model.layers.${i}.mlp.${part}_proj`),
    ]),
  );
  return new Map(
    names.map((stem) => {
      const name = `${stem}.weight`;
      const dtype = formats[stem.split('.').at(-1)!] ?? formats['rest'] ?? 'F32';
      return [name, { name, file: 'model.gguf', offset: 0, sizeBytes: 0, dtype, shape: [] }];
    }),
  );
}

/** A device without kernels for these schemes, in these ops. */
function groupRefusing(
  group: DeviceGroup,
  refuse: Partial<Record<OpName, WeightScheme>>,
): Pick<DeviceGroup, 'negotiate' | 'constraints'> {
  return {
    constraints: group.constraints,
    async negotiate(request) {
      const { answers, batchInvariant } = await group.negotiate(request);
      const refused = { support: 'unsupported', kernel: '', reason: 'no such kernel' } as const;
      const isRefused = ({ op, weightScheme }: (typeof request.ops)[number]) =>
        weightScheme !== undefined && refuse[op] === weightScheme;
      return { batchInvariant, answers: answers.map((answer, i) => (isRefused(request.ops[i]!) ? refused : answer)) }; // prettier-ignore
    },
  };
}

describe('quantized weights', () => {
  const buildPacked = async (
    formats: Readonly<Record<string, CheckpointDtype>>,
    refuse: Partial<Record<OpName, WeightScheme>> = {},
    changes: Partial<ModelConfig> = {},
  ): Promise<BuiltPlan> => {
    const group = await createReferenceBackend().create({ log: () => {} }).open(['reference:0'], {}); // prettier-ignore
    const wide = { ...config, hiddenSize: 256, intermediateSize: 512, headDim: 32, ...changes };
    return buildPlan(wide, 'bf16', groupRefusing(group, refuse), limits, locationsOf(formats));
  };
  const schemesOf = ({ plan }: BuiltPlan): (WeightScheme | undefined)[] =>
    plan.weights.filter(({ shape }) => shape.length === 2).map(({ scheme }) => scheme);

  it('stay so where every part of a weight is quantized', async () => {
    const built = await buildPacked({ rest: 'Q4_0', lm_head: 'BF16' });
    expect(schemesOf(built)).toEqual([...Array.from({ length: 13 }, () => 'int4:g32'), undefined]);
    const mixed = await buildPacked({ rest: 'Q8_0', v_proj: 'F16' });
    const qkv = mixed.plan.weights.find(({ name }) => name.includes('{q_proj,k_proj,v_proj}'))!;
    expect(qkv.scheme).toBeUndefined();
    expect(schemesOf(mixed).filter((scheme) => scheme === 'int8:g32')).toHaveLength(2 + 3 * 3);
  });

  it('are unpacked in float32 where their scales would be rounded', async () => {
    const group = await createReferenceBackend().create({ log: () => {} }).open(['reference:0'], {}); // prettier-ignore
    const wide = { ...config, hiddenSize: 256, intermediateSize: 512, headDim: 32 };
    const formats = { rest: 'Q4_K', down_proj: 'Q8_0' } as const;
    const inF32 = await buildPlan(wide, 'f32', group, limits, locationsOf(formats));
    expect(schemesOf(inF32).filter((scheme) => scheme !== undefined)).toEqual(['int8:g32', 'int8:g32', 'int8:g32']); // prettier-ignore
  });

  it.each([
    [{ q_proj: 'Q4_0', rest: 'Q4_1' }, 'int4:g32:min'],
    [{ q_proj: 'Q4_K', rest: 'Q6_K' }, 'int8:g16:min'],
    [{ q_proj: 'Q4_0', rest: 'Q3_K' }, 'int8:g16'],
    [{ q_proj: 'Q5_0', rest: 'Q4_0' }, 'int8:g32'],
    [{ q_proj: 'Q5_K', rest: 'Q4_K' }, 'int8:g32:min'],
  ] as const)('of different formats (%o) share the scheme that holds them all', async (formats, scheme) => {
    const { plan } = await buildPacked(formats);
    expect(plan.weights.find(({ name }) => name.includes('{q_proj'))!.scheme).toBe(scheme);
  });

  it('are unpacked where an op that reads them lacks a kernel, and the plan says why', async () => {
    const built = await buildPacked({ rest: 'Q8_0' }, { linear_gated: 'int8:g32' });
    const plain = built.plan.weights.filter(
      ({ shape, scheme }) => shape.length === 2 && scheme === undefined,
    );
    expect(plain.map(({ uses }) => uses)).toEqual(Array.from({ length: 3 }, () => ['linear_gated']));
    expect(countOf(built.plan, 'linear_gated')).toBe(3);
    expect(built.negotiation.unpacked).toEqual([
      { scheme: 'int8:g32', op: 'linear_gated', reason: 'no such kernel' },
    ]);
    expect(built.negotiation.answers.every(({ support }) => support === 'native')).toBe(true);
    expect(explain(built.plan, built.negotiation)).toContain(
      'unpacked   weights in int8:g32, for linear_gated: no such kernel',
    );
  });

  it('are unpacked for both uses of a tied embedding if one of them cannot read them', async () => {
    const built = await buildPacked({ rest: 'Q8_0' }, { embedding: 'int8:g32' }, { tieWordEmbeddings: true });
    const tied = built.plan.weights.find(({ shape }) => shape[0] === 100)!;
    expect(tied).toMatchObject({ uses: ['embedding', 'linear'] });
    expect(tied.scheme).toBeUndefined();
  });

  it('count with the bytes of their integers, scales and minima', async () => {
    const bytesOf = async (format: CheckpointDtype): Promise<number> => {
      const { plan } = await buildPacked({ rest: format });
      return weightBytes(plan.weights.find(({ uses }) => uses.includes('linear_gated'))!);
    };
    const elements = 2 * 512 * 256;
    expect(await bytesOf('BF16')).toBe(2 * elements);
    expect(await bytesOf('Q8_0')).toBe((elements / 32) * 34);
    expect(await bytesOf('Q4_0')).toBe((elements / 32) * 18);
    expect(await bytesOf('Q4_1')).toBe((elements / 32) * 20);
    expect(await bytesOf('Q4_K')).toBe((elements / 32) * 20);
    expect(await bytesOf('Q6_K')).toBe((elements / 16) * 18);
    const built = await buildPacked({ rest: 'Q4_1' });
    const text = explain(built.plan, built.negotiation);
    expect(text).toContain('bf16[T, 256] int4:g32:min[1024, 256] → bf16[T, 512]');
    expect(text).toMatch(/^weights +\S+ .iB in \d+ tensors \(int4:g32:min 99 %, f32 0\.\d+ %\)/m);
  });
});

describe('the plan', () => {
  it('holds tied embeddings once, for both uses', async () => {
    const { plan } = await build({ tieWordEmbeddings: true });
    const tied = plan.weights.filter((weight) => weight.shape[0] === 100);
    expect(tied.map(({ name, uses }) => ({ name, uses }))).toEqual([
      { name: 'model.embed_tokens.weight', uses: ['embedding', 'linear'] },
    ]);
  });

  it('adds to the residual stream in place', async () => {
    const { plan } = await build();
    for (const op of plan.ops.filter(({ op }) => op === 'linear_add')) {
      const at = (id: number): number => (plan.tensors[id] as PlanTensor & { kind: 'buffer' }).offset;
      expect(at(op.outputs[0]!)).toBe(at(op.inputs[ops.linear_add.inputs.indexOf('residual')]!));
    }
  });

  it('runs the head in tiles whose logits fit the arena', async () => {
    const { plan } = await build();
    const [body, head] = plan.segments;
    expect(body).toEqual({ firstOp: 0, numOps: plan.ops.length - 9 });
    expect(head).toEqual({ firstOp: plan.ops.length - 9, numOps: 9, tile: 50 });
    const long = await buildPlan(config, 'f32', await createReferenceBackend().create({ log: () => {} }).open(['reference:0'], {}), { ...limits, maxTokens: 4096, maxLogitRows: 4096 }); // prettier-ignore
    expect(long.plan.segments[1]!.tile).toBe(64);
  });

  it('is padded to the device’s buckets', async () => {
    const { plan } = await build({}, { constraints: { tokenBuckets: [16, 64] } });
    expect(plan.limits.maxTokens).toBe(64);
  });

  it('can be encoded', async () => {
    const { plan } = await build();
    const words = encodePlan(plan);
    expect(words[0]).toBe(planMagic);
    expect(words.slice(2, 5)).toEqual(
      Int32Array.of(plan.weights.length, plan.tensors.length, plan.ops.length),
    );
  });

  it('is built fast for many layers', async () => {
    const begin = performance.now();
    const { plan } = await build({ numLayers: 80, slidingWindows: Array(80).fill(0) });
    expect(plan.ops.length).toBe(80 * 8 + 7);
    expect(performance.now() - begin).toBeLessThan(5000);
  });
});

describe('explain', () => {
  it('counts ops by kernel, shape and bytes', async () => {
    const { plan, negotiation } = await build();
    const rows = explainRows(plan, negotiation);
    expect(rows.find((row) => row.op === 'linear_gated@1')).toEqual({
      count: 2,
      op: 'linear_gated@1',
      kernel: 'reference.linear_gated',
      shapes: 'bf16[T, 16] bf16[48, 16] → bf16[T, 24]',
      weightBytes: 2 * 48 * 16 * 2,
      reason: undefined,
    });
    expect(rows.reduce((sum, row) => sum + row.count, 0)).toBe(plan.ops.length);
  });

  it('sums what is held and what a token reads', async () => {
    const { plan } = await build();
    const perLayer = 2 * (64 * 16 + 16 * 32 + 3 * 16 * 24) + 4 * 2 * 16;
    const weights = 2 * 2 * 100 * 16 + 3 * perLayer + 4 * 16 + 4 * 4;
    expect(planBytes(plan)).toEqual({
      weights,
      weightsReadPerStep: weights - 2 * 99 * 16,
      arena: plan.arenaBytes,
      kvPerToken: 3 * 2 * 2 * 8 * 2,
    });
  });

  it('prints the plan with the reasons for what was declined', async () => {
    const { plan, negotiation } = await build({}, { refuse: { linear_gated: 'no such kernel' } });
    const text = explain(plan, negotiation);
    expect(text).toContain('reference.attention');
    expect(text).toContain('not fused  linear_gated: no such kernel');
    expect(text).toMatch(/KV cache +192 B per token in 3 layers/);
  });

  it('prints sizes as people read them', () => {
    expect([0, 1023, 1536, 5 * 2 ** 30, 300 * 2 ** 20].map(formatBytes)).toEqual(['0 B', '1023 B', '1.5 KiB', '5.0 GiB', '300 MiB']); // prettier-ignore
  });
});
