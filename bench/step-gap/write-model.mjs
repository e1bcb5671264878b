/** A checkpoint of a real shape without weights: a header, and a hole behind it. */
import { closeSync, ftruncateSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** Writes Qwen3-0.6B's config.json and model.safetensors. */
export function writeModel(folder) {
  const [hidden, layers, heads, kvHeads, headDim, intermediate, vocab] = [1024, 28, 16, 8, 128, 3072, 151936];
  mkdirSync(folder, { recursive: true });
  const config = {
    architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3', hidden_size: hidden, num_hidden_layers: layers, num_attention_heads: heads,
    num_key_value_heads: kvHeads, head_dim: headDim, intermediate_size: intermediate, vocab_size: vocab, rope_theta: 1e6, rms_norm_eps: 1e-6,
    hidden_act: 'silu', tie_word_embeddings: true, max_position_embeddings: 40960, torch_dtype: 'bfloat16', attention_bias: false,
  }; // prettier-ignore
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const shapes = { 'model.embed_tokens.weight': [vocab, hidden], 'model.norm.weight': [hidden] };
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}`;
    for (const norm of ['input_layernorm', 'post_attention_layernorm'])
      shapes[`${at}.${norm}.weight`] = [hidden];
    for (const norm of ['q_norm', 'k_norm']) shapes[`${at}.self_attn.${norm}.weight`] = [headDim];
    shapes[`${at}.self_attn.q_proj.weight`] = [heads * headDim, hidden];
    for (const part of ['k_proj', 'v_proj'])
      shapes[`${at}.self_attn.${part}.weight`] = [kvHeads * headDim, hidden];
    shapes[`${at}.self_attn.o_proj.weight`] = [hidden, heads * headDim];
    for (const part of ['gate_proj', 'up_proj']) shapes[`${at}.mlp.${part}.weight`] = [intermediate, hidden];
    shapes[`${at}.mlp.down_proj.weight`] = [hidden, intermediate];
  }
  writeSparse(join(folder, 'model.safetensors'), shapes);
}

function writeSparse(path, shapes) {
  let end = 0;
  const header = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const start = end;
    end += 2 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [start, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(path, 'w');
  writeSync(file, Buffer.concat([length, text]));
  ftruncateSync(file, 8 + text.length + end);
  closeSync(file);
}
