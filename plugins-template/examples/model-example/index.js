/**
 * Phi-3 (Phi-3-mini-4k, Phi-3-medium-4k, Phi-4) as a package of its own: Tenon runs a checkpoint whose config.json says
 * "architectures": ["Phi3ForCausalLM"] as soon as this package is installed. Its layers are Llama's; what differs is that its
 * checkpoints hold q, k and v in one matrix, and gate and up in another.
 *
 * A model file does not compute. `build` runs once and records which ops there are; the backend runs them for every step.
 */
import { cutRows, gatedFeedForward, rotaryCosSin, selfAttention } from '@tenon/core/extensions';

/** config.json, with the values that Phi-3's own class has for fields that it may leave out. */
function config(fields) {
  return { max_position_embeddings: 4096, rms_norm_eps: 1e-5, ...fields.raw };
}

/** The fused matrices of the checkpoint, cut into those that the layers read. They stay where they are: no byte is copied. */
function tensors(tensor, { numHeads, numKvHeads, headDim, intermediateSize }) {
  const cut = (fused, rowsOf) =>
    cutRows(
      tensor,
      Object.entries(rowsOf).map(([part, rows]) => ({ name: tensor.name.replace(fused, part), rows })),
    );
  if (tensor.name.endsWith('.qkv_proj.weight')) {
    const kvRows = numKvHeads * headDim;
    return cut('qkv_proj', { q_proj: numHeads * headDim, k_proj: kvRows, v_proj: kvRows });
  }
  if (tensor.name.endsWith('.gate_up_proj.weight'))
    return cut('gate_up_proj', { gate_proj: intermediateSize, up_proj: intermediateSize });
  return [tensor];
}

/** From token ids, i32 [T], to sampled tokens, i32 [L]: T tokens in a step, L of which are answered. */
function build(g, config) {
  const { vocabSize, hiddenSize, numLayers, rmsNormEps, tieWordEmbeddings } = config;
  const norm = (x, name) => g.rmsNorm(x, g.vector(name, hiddenSize), { eps: rmsNormEps });

  const embeddings = g.matrix('model.embed_tokens.weight', vocabSize, hiddenSize);
  const cosSin = rotaryCosSin(g, config);
  let x = g.embedding(g.input('tokenIds'), embeddings); // The residual stream, f32 [T, hiddenSize].
  for (let layer = 0; layer < numLayers; layer++) {
    const name = `model.layers.${layer}`;
    const attentionIn = norm(x, `${name}.input_layernorm.weight`);
    x = g.add(x, selfAttention(g, config, attentionIn, { layer, cosSin }));
    const feedForwardIn = norm(x, `${name}.post_attention_layernorm.weight`);
    x = g.add(x, gatedFeedForward(g, config, feedForwardIn, layer));
  }
  const rows = norm(g.gatherRows(x, g.input('logitRows')), 'model.norm.weight');
  const head = tieWordEmbeddings ? embeddings : g.matrix('lm_head.weight', vocabSize, hiddenSize);
  return g.sample(g.linear(rows, head));
}

/** @type {import('@tenon/core/extensions').ModelExtension} */
const phi3 = { config, tensors, build };
export default phi3;
