#!/usr/bin/env node
/**
 * How fast a large checkpoint is loaded: writes a Llama of random weights in bf16 as several safetensors files, mostly sparse, then alternates
 * reading them (page cache to one small buffer per CPU), copying them into fresh memory, and loading them.
 * Usage: node bench/load-speed.mjs [gigabytes = 16] [folder = in the temporary folder]; needs `npm run build`, python3, and memory for twice
 * the size. The files are removed at the end.
 */
import { execFileSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { closeSync, ftruncateSync, mkdirSync, openSync, readSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'; // prettier-ignore
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const numRounds = 3;
const pieceBytes = 8 << 20;
const shardBytes = 4e9;
const minShare = 0.7;
/** Bytes at the start of each tensor that are random; the rest is a hole in the file. */
const randomBytes = 1 << 20;
const dims = { hidden: 4096, intermediate: 14_336, numHeads: 32, numKvHeads: 8, headDim: 128, vocab: 32_000 };

if (isMainThread) await main();
else readPieces(workerData);

async function main() {
  const gigabytes = Number(process.argv[2] ?? 16);
  const folder = join(process.argv[3] ?? tmpdir(), `tenon-load-speed-${process.pid}`);
  mkdirSync(folder);
  try {
    const files = writeCheckpoint(folder, gigabytes * 1e9);
    const bytes = files.reduce((sum, file) => sum + statSync(file).size, 0);
    console.log(`${files.length} files, ${(bytes / 1e9).toFixed(1)} GB, on ${availableParallelism()} CPUs`);
    await readAll(files, bytes);
    const shares = [];
    for (let i = 0; i < numRounds; i++) shares.push(await round(folder, files, bytes));
    process.exitCode = shares.toSorted((a, b) => a - b)[1] >= minShare ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Returns loading's share of the speed of copying. */
async function round(folder, files, bytes) {
  const read = await readAll(files, bytes);
  const copied = Number(execFileSync('python3', [fileURLToPath(new URL('copy_speed.py', import.meta.url)), ...files])); // prettier-ignore
  const loaded = await load(folder, bytes);
  const gb = (speed) => `${(speed / 1e9).toFixed(2)} GB/s`;
  const percent = (speed) => `${((100 * loaded) / speed).toFixed(0)} %`;
  console.log(
    `read ${gb(read)}, copied into fresh memory ${gb(copied)}, loaded ${gb(loaded)}: ${percent(read)} of reading, ${percent(copied)} of copying`,
  );
  return loaded / copied;
}

async function load(folder, bytes) {
  const { LLM } = await import('../packages/core/dist/index.js');
  const start = performance.now();
  const llm = await LLM.load(folder, { skipTokenizerInit: true, maxModelLen: 256, numGpuBlocksOverride: 64 });
  const seconds = (performance.now() - start) / 1000;
  await llm.close();
  return bytes / seconds;
}

/** Bytes per second, all CPUs reading pieces in turn. */
async function readAll(files, bytes) {
  const start = performance.now();
  const numThreads = availableParallelism();
  await Promise.all(
    Array.from({ length: numThreads }, (_, thread) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: { files, thread, numThreads } });
      return new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    }),
  );
  return bytes / ((performance.now() - start) / 1000);
}

function readPieces({ files, thread, numThreads }) {
  const buffer = Buffer.alloc(pieceBytes);
  for (const path of files) {
    const file = openSync(path);
    const numPieces = Math.ceil(statSync(path).size / pieceBytes);
    for (let i = thread; i < numPieces; i += numThreads)
      readSync(file, buffer, 0, pieceBytes, i * pieceBytes);
    closeSync(file);
  }
  parentPort.postMessage('done');
}

function writeCheckpoint(folder, targetBytes) {
  const head = [tensor('model.embed_tokens.weight', dims.vocab, dims.hidden), tensor('model.norm.weight', dims.hidden), tensor('lm_head.weight', dims.vocab, dims.hidden)]; // prettier-ignore
  const sizeOf = (tensors) => tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  const numLayers = Math.max(1, Math.round((targetBytes - sizeOf(head)) / sizeOf(layer(0))));
  const tensors = [...head, ...Array.from({ length: numLayers }, (_, i) => layer(i)).flat()];
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config(numLayers)));
  const shards = cutIntoShards(tensors);
  const names = shards.map((_, i) => `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`);
  const weightMap = shards.flatMap((shard, i) => shard.map(({ name }) => [name, names[i]]));
  writeFileSync(
    join(folder, 'model.safetensors.index.json'),
    JSON.stringify({ metadata: {}, weight_map: Object.fromEntries(weightMap) }),
  );
  return shards.map((shard, i) => writeShard(join(folder, names[i]), shard));
}

function number(i) {
  return String(i).padStart(5, '0');
}

function tensor(name, ...shape) {
  return { name, shape, bytes: 2 * shape.reduce((a, b) => a * b, 1) };
}

function layer(i) {
  const { hidden, intermediate, numHeads, numKvHeads, headDim } = dims;
  const name = (part) => `model.layers.${i}.${part}.weight`;
  return [
    tensor(name('input_layernorm'), hidden),
    tensor(name('self_attn.q_proj'), numHeads * headDim, hidden),
    tensor(name('self_attn.k_proj'), numKvHeads * headDim, hidden),
    tensor(name('self_attn.v_proj'), numKvHeads * headDim, hidden),
    tensor(name('self_attn.o_proj'), hidden, numHeads * headDim),
    tensor(name('post_attention_layernorm'), hidden),
    tensor(name('mlp.gate_proj'), intermediate, hidden),
    tensor(name('mlp.up_proj'), intermediate, hidden),
    tensor(name('mlp.down_proj'), hidden, intermediate),
  ];
}

function config(numLayers) {
  return {
    architectures: ['LlamaForCausalLM'], model_type: 'llama', torch_dtype: 'bfloat16', hidden_act: 'silu', hidden_size: dims.hidden,
    intermediate_size: dims.intermediate, num_attention_heads: dims.numHeads, num_key_value_heads: dims.numKvHeads,
    head_dim: dims.headDim, num_hidden_layers: numLayers, vocab_size: dims.vocab, max_position_embeddings: 4096, rms_norm_eps: 1e-5,
    rope_theta: 10_000, tie_word_embeddings: false, bos_token_id: 1, eos_token_id: 2,
  }; // prettier-ignore
}

function cutIntoShards(tensors) {
  const shards = [[]];
  let bytes = 0;
  for (const one of tensors) {
    if (bytes + one.bytes > shardBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1).push(one);
    bytes += one.bytes;
  }
  return shards;
}

function writeShard(path, tensors) {
  let end = 0;
  const entries = tensors.map(({ name, shape, bytes }) => {
    const start = end;
    end += bytes;
    return [name, { dtype: 'BF16', shape, data_offsets: [start, end] }];
  });
  const json = JSON.stringify(Object.fromEntries(entries));
  const header = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const file = openSync(path, 'w');
  writeSync(file, length);
  writeSync(file, header);
  ftruncateSync(file, 8 + header.length + end);
  const values = smallValues();
  for (const [, { data_offsets: [start, stop] }] of entries) writeSync(file, values, 0, Math.min(randomBytes, stop - start), 8 + header.length + start); // prettier-ignore
  closeSync(file);
  return path;
}

/** Random bf16 values between 2^-7 and 2^-5, of both signs. */
function smallValues() {
  const values = randomFillSync(new Uint16Array(randomBytes / 2));
  for (let i = 0; i < values.length; i++) values[i] = (values[i] & 0x80ff) | 0x3c00;
  return values;
}
