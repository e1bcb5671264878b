/**
 * The op table: every op a Program may hold. The builder, the verifier, the plan encoder, the C++ header
 * `schema.gen.h`, the float32 references and the conformance cases all follow from it.
 *
 * Operand notation: `T` tokens of this step, `S` sequences, `L` logit rows. `?` marks an optional operand.
 * Attributes are 32-bit: `i` integer, `f` float. Their order here is their order in the encoded plan.
 */
export interface OpSpec {
  /** Position in the table is the op's number on the wire; entries are appended, never reordered. */
  readonly version: number;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attrs: Readonly<Record<string, 'i' | 'f'>>;
  /** `collective`: all ranks of a group run it together. `step`: reads the step's ragged metadata (cuSeqlensQ, seqLens, blockTables or sampling parameters). */
  readonly effects: readonly ('step' | 'kv-read' | 'kv-write' | 'sample' | 'collective')[];
  /** True for ops that only the fusion pass creates, where the backend has a kernel for them. */
  readonly fused: boolean;
}

const op = (
  inputs: readonly string[],
  outputs: readonly string[],
  attrs: Readonly<Record<string, 'i' | 'f'>> = {},
  effects: OpSpec['effects'] = [],
): OpSpec => ({ version: 1, inputs, outputs, attrs, effects, fused: false });

const fused = (...args: Parameters<typeof op>): OpSpec => ({ ...op(...args), fused: true });

export const ops = {
  /** y[t, :] = weight[tokenIds[t], :]. A token id of -1 reads the sequence's last sampled token (see step.ts). */
  embedding: op(['tokenIds', 'weight'], ['y'], {}, ['step']),

  /** Rows of `size` elements: y = x / sqrt(mean(x²) + eps) * weight. x holds numel / size rows. */
  rms_norm: op(['x', 'weight'], ['y'], { size: 'i', eps: 'f' }),

  /** y[r, n] = Σk x[r, k] * weight[n, k] (+ bias[n]); f32 accumulation in ascending k. */
  linear: op(['x', 'weight', 'bias?'], ['y']),

  /** y = a + b, elementwise. */
  add: op(['a', 'b'], ['y']),

  /**
   * y[t, 0:n] = cos(a[t, i]) * scale, y[t, n:2n] = sin(a[t, i]) * scale with a = f32(position) * invFreq[i], n = rotaryDim / 2.
   * dynamic = 1 (NTK by length): where the length l = max(position + 1, promptLen) exceeds originalMaxPosition, invFreq is
   * recomputed from base * (factor * l / originalMaxPosition - (factor - 1)) ^ (rotaryDim / (rotaryDim - 2)).
   */
  rope_cos_sin: op(
    ['positions', 'invFreq'],
    ['y'],
    { rotaryDim: 'i', scale: 'f', dynamic: 'i', base: 'f', factor: 'f', originalMaxPosition: 'i' },
    ['step'],
  ),

  /**
   * Rotates the first rotaryDim elements of each head. interleaved = 0 pairs (i, i + rotaryDim / 2) as Hugging Face
   * checkpoints do; interleaved = 1 pairs (2i, 2i + 1) as GGUF files of llama do.
   */
  rope: op(['x', 'cosSin'], ['y'], { numHeads: 'i', headDim: 'i', rotaryDim: 'i', interleaved: 'i' }),

  /** Stores k[t], v[t] of `layer` at slotMapping[t] = block * blockSize + offset; a slot of -1 stores nothing. */
  kv_write: op(['k', 'v', 'slotMapping', 'kv'], ['kvOut'], { layer: 'i', numKvHeads: 'i', headDim: 'i' }, [
    'kv-write',
  ]),

  /**
   * Causal paged attention with grouped queries. Token at position p attends to positions j ≤ p, and j > p - slidingWindow
   * where slidingWindow > 0. Scores are q·k * scale, soft-capped by c * tanh(s / c) where softCap = c > 0.
   */
  attention: op(
    ['q', 'kv'],
    ['y'],
    {
      layer: 'i', numHeads: 'i', numKvHeads: 'i', headDim: 'i',
      scale: 'f', slidingWindow: 'i', softCap: 'f',
    }, // prettier-ignore
    ['step', 'kv-read'],
  ),

  /** y = act(gate) * up. activation: 0 silu, 1 gelu (erf), 2 gelu (tanh). */
  gated_act: op(['gate', 'up'], ['y'], { activation: 'i' }),

  /** y[l, :] = x[rows[l], :]. */
  gather_rows: op(['x', 'rows'], ['y']),

  /** Samples one token per logit row by the step's sampling parameters; see step.ts for order and outputs. */
  sample: op(['logits'], ['tokens'], {}, ['step', 'sample']),

  /** y = residual + linear(x); y may alias residual. */
  linear_add: fused(['x', 'weight', 'residual', 'bias?'], ['y']),

  /** y[r, i] = act(x·weight[i]) * (x·weight[I + i]); weight [2I, K] holds the gate rows, then the up rows; bias [2I]. */
  linear_gated: fused(['x', 'weight', 'bias?'], ['y'], { activation: 'i' }),

  /**
   * qkv [T, (numHeads + 2 numKvHeads) headDim]: RMS-norms the q and k heads (where weights are given), rotates them,
   * stores k and v in the cache, and returns q [T, numHeads headDim].
   */
  qkv_rope_kv_write: fused(
    ['qkv', 'cosSin', 'qNorm?', 'kNorm?', 'slotMapping', 'kv'],
    ['q', 'kvOut'],
    {
      layer: 'i', numHeads: 'i', numKvHeads: 'i', headDim: 'i',
      rotaryDim: 'i', interleaved: 'i', eps: 'f',
    }, // prettier-ignore
    ['kv-write'],
  ),

  /** y = Σ of x over the ranks of the group, elementwise, in the order of ranks. */
  all_reduce: op(['x'], ['y'], {}, ['collective']),

  /** y[r, rank * n + c] = x of that rank [r, c], n columns each: the ranks' columns side by side. size: the number of ranks. */
  all_gather: op(['x'], ['y'], { size: 'i' }, ['collective']),

  /** y[r, c] = Σ over the ranks of x[r, rank * n + c], n = columns / size: each rank keeps its own columns of the sum. */
  reduce_scatter: op(['x'], ['y'], { size: 'i' }, ['collective']),
} as const satisfies Record<string, OpSpec>;

export type OpName = keyof typeof ops;
export const opNames = Object.keys(ops) as OpName[];

/** Values of the `activation` attribute, by position. */
export const activations = ['silu', 'gelu', 'gelu_tanh'] as const;
export type Activation = (typeof activations)[number];
