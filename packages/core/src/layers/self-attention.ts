import type { GraphBuilder, Value } from '../program/graph-builder.js';
import type { ModelConfig } from '../models/model-config.js';
import { projection } from './projection.js';

export interface SelfAttentionOptions {
  readonly layer: number;
  /** Of rotaryCosSin. */
  readonly cosSin: Value;
  /** RMS-norms each head of q and k before its rotation. */
  readonly qkNorm?: boolean;
}

/** Grouped-query attention over the cache: x [T, hiddenSize] of the model's type → f32 [T, hiddenSize]. */
export function selfAttention(
  g: GraphBuilder,
  config: ModelConfig,
  x: Value,
  options: SelfAttentionOptions,
): Value {
  const { hiddenSize, numHeads, numKvHeads, headDim, qkvBias } = config;
  const name = `model.layers.${options.layer}.self_attn`;
  const project = (part: string, numRows: number): Value =>
    projection(g, x, `${name}.${part}_proj`, { numRows, numColumns: hiddenSize, bias: qkvBias });
  const q = rotateHeads(
    g,
    config,
    project('q', numHeads * headDim),
    `${name}.q_norm.weight`,
    numHeads,
    options,
  );
  const k = rotateHeads(
    g,
    config,
    project('k', numKvHeads * headDim),
    `${name}.k_norm.weight`,
    numKvHeads,
    options,
  );
  const v = project('v', numKvHeads * headDim);
  const layer = g.kvLayer({ numKvHeads, headDim });
  g.kvWrite(k, v, layer, { numKvHeads, headDim });
  const slidingWindow = config.slidingWindows[options.layer] ?? 0;
  const y = g.attention(q, layer, { numHeads, numKvHeads, headDim, scale: headDim ** -0.5, slidingWindow });
  const shape = { numRows: hiddenSize, numColumns: numHeads * headDim, bias: config.attentionOutputBias };
  return projection(g, y, `${name}.o_proj`, shape);
}

/** x f32 [T, numHeads · headDim], normed (where the model does) and rotated, in the model's type. */
function rotateHeads(
  g: GraphBuilder,
  { headDim, rotaryDim, ropeInterleaved, rmsNormEps }: ModelConfig,
  x: Value,
  normName: string,
  numHeads: number,
  { cosSin, qkNorm }: SelfAttentionOptions,
): Value {
  const norm = { eps: rmsNormEps, size: headDim, dtype: 'f32' as const };
  const heads = qkNorm ? g.rmsNorm(x, g.vector(normName, headDim), norm) : x;
  return g.rope(heads, cosSin, { numHeads, headDim, rotaryDim, interleaved: ropeInterleaved });
}
