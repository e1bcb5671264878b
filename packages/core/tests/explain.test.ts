/** Explaining a model reads its headers, never its weights: it takes no time for one of any size. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNullBackend } from '../src/conformance/null-backend.js';
import { LLM } from '../src/llm.js';
import { nullBackend, tenon } from './cli/tenon-process.js';
import { temporaryFolder, type Folder } from './fixtures/model-files.js';

/** Llama 3 8B's shape: 16 GB in bfloat16. */
const large = {
  architectures: ['LlamaForCausalLM'],
  vocab_size: 128_256,
  hidden_size: 4096,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  intermediate_size: 14_336,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-5,
  rope_theta: 500_000,
  torch_dtype: 'bfloat16',
  bos_token_id: 128_000,
  eos_token_id: 128_001,
};

function largeTensors(): [string, number[]][] {
  const { hidden_size: H, intermediate_size: I, vocab_size: V, num_hidden_layers: L } = large;
  const layer = (i: number): [string, number[]][] => [
    [`model.layers.${i}.input_layernorm.weight`, [H]],
    [`model.layers.${i}.self_attn.q_proj.weight`, [H, H]],
    [`model.layers.${i}.self_attn.k_proj.weight`, [H / 4, H]],
    [`model.layers.${i}.self_attn.v_proj.weight`, [H / 4, H]],
    [`model.layers.${i}.self_attn.o_proj.weight`, [H, H]],
    [`model.layers.${i}.post_attention_layernorm.weight`, [H]],
    [`model.layers.${i}.mlp.gate_proj.weight`, [I, H]],
    [`model.layers.${i}.mlp.up_proj.weight`, [I, H]],
    [`model.layers.${i}.mlp.down_proj.weight`, [H, I]],
  ];
  return [
    ['model.embed_tokens.weight', [V, H]],
    ...Array.from({ length: L }, (_, i) => layer(i)).flat(),
    ['model.norm.weight', [H]],
    ['lm_head.weight', [V, H]],
  ];
}

/** A file of its full size, with a header and a hole for the data. */
function writeSparse(file: string, tensors: readonly [string, number[]][]): number {
  let end = 0;
  const entries = tensors.map(([name, shape]) => {
    const begin = end;
    end += shape.reduce((product, size) => product * size, 2);
    return [name, { dtype: 'BF16', shape, data_offsets: [begin, end] }] as const;
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(header.length));
  const descriptor = openSync(file, 'w');
  writeSync(descriptor, Buffer.concat([prefix, header]));
  ftruncateSync(descriptor, prefix.length + header.length + end);
  closeSync(descriptor);
  return end;
}

let folder: Folder;
let bytes: number;
beforeAll(() => {
  folder = temporaryFolder();
  folder.write('config.json', large);
  bytes = writeSparse(`${folder.path}/model.safetensors`, largeTensors());
});
afterAll(() => folder[Symbol.dispose]());

describe('explaining a model of 16 GB', () => {
  it('takes no time', async () => {
    expect(bytes).toBeGreaterThan(16e9);
    const startMs = performance.now();
    const text = await LLM.explain(folder.path, {}, { backend: createNullBackend({ memoryBytes: 2 ** 36 }) });
    expect(performance.now() - startMs).toBeLessThan(5000);
    expect(text).toMatch(/^weights +15\.0 GiB in \d+ tensors/m);
    expect(text).toContain('attention');
    expect(text).not.toContain('cannot run');
  });

  it('says that a device has too little memory for it', async () => {
    const text = await LLM.explain(folder.path, {}, { backend: createNullBackend({ memoryBytes: 2 ** 33 }) });
    expect(text).toMatch(/^weights +15\.0 GiB/m);
    expect(text).toMatch(
      /^cannot run the model needs 153\d\d\.\d MiB for weights .* choose a smaller model/m,
    );
  });

  it('works from the command line', async () => {
    const { status, stdout, stderr } = await tenon(['explain', folder.path, ...nullBackend]).ended;
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^weights +15\.0 GiB/m);
  });

  it('names tensors that are not there', async () => {
    using broken = temporaryFolder();
    broken.write('config.json', large);
    writeSparse(`${broken.path}/model.safetensors`, largeTensors().slice(1));
    await expect(LLM.explain(broken.path, {}, { backend: createNullBackend() })).rejects.toMatchObject({
      code: 'config.weights-missing',
      message: expect.stringContaining('model.embed_tokens.weight'),
    });
  });
});
