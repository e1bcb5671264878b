import type { GraphBuilder, Value } from '../program/graph-builder.js';
import type { ModelConfig } from '../models/model-config.js';
import { gatedFeedForward } from './gated-feed-forward.js';
import { rotaryCosSin } from './rotary.js';
import { selfAttention, type SelfAttentionOptions } from './self-attention.js';

/**
 * A decoder of pre-norm layers, x += attention(norm(x)), x += feedForward(norm(x)), from token ids to sampled tokens
 * i32 [L]. The residual stream x is f32 [T, hiddenSize].
 */
export function causalDecoder(
  g: GraphBuilder,
  config: ModelConfig,
  options: Pick<SelfAttentionOptions, 'qkNorm'> = {},
): Value {
  const { vocabSize, hiddenSize, numLayers } = config;
  const embeddings = g.matrix('model.embed_tokens.weight', vocabSize, hiddenSize);
  const cosSin = rotaryCosSin(g, config);
  let x = g.embedding(g.input('tokenIds'), embeddings);
  for (let layer = 0; layer < numLayers; layer++) {
    const name = `model.layers.${layer}`;
    const attentionIn = hiddenNorm(g, config, x, `${name}.input_layernorm.weight`);
    x = g.add(x, selfAttention(g, config, attentionIn, { layer, cosSin, ...options }));
    const feedForwardIn = hiddenNorm(g, config, x, `${name}.post_attention_layernorm.weight`);
    x = g.add(x, gatedFeedForward(g, config, feedForwardIn, layer));
  }
  const rows = hiddenNorm(g, config, g.gatherRows(x, g.input('logitRows')), 'model.norm.weight');
  const head = config.tieWordEmbeddings ? embeddings : g.matrix('lm_head.weight', vocabSize, hiddenSize);
  return g.sample(g.linear(rows, head));
}

/** RMS norm over hiddenSize, in the model's type. */
function hiddenNorm(g: GraphBuilder, { hiddenSize, rmsNormEps }: ModelConfig, x: Value, name: string): Value {
  return g.rmsNorm(x, g.vector(name, hiddenSize), { eps: rmsNormEps });
}
