/** GGUF files: raw, or a small model with edited metadata; then its configuration and its tokenizer. */
import { ggufDefinition } from '../../packages/core/src/tokenizer/gguf-vocabulary.js';
import { TextTokenizer } from '../../packages/core/src/tokenizer/text-tokenizer.js';
import { parseGenerationDefaults } from '../../packages/core/src/weights/generation-config.js';
import { ggufGenerationConfig, parseGgufModel } from '../../packages/core/src/weights/gguf-model.js';
import { readGguf, type GgufFile } from '../../packages/core/src/weights/gguf.js';
import { ByteSource } from './byte-source.js';
import { editedJson } from './edited-json.js';
import { require, requireFinite, runCase } from './oracle.js';
import { writeScratch } from './scratch-folder.js';

const tokens = ['<unk>', '<s>', '</s>', ...'▁abcdefgh '.split(''), '▁a', 'ab', 'abc', '<0x41>', 'é', '😀'];
const metadata = {
  'general.architecture': 'llama',
  'general.alignment': 32,
  'llama.embedding_length': 8,
  'llama.block_count': 1,
  'llama.attention.head_count': 2,
  'llama.attention.head_count_kv': 1,
  'llama.feed_forward_length': 16,
  'llama.attention.layer_norm_rms_epsilon': 1e-5,
  'llama.context_length': 64,
  'llama.rope.freq_base': 10_000,
  'llama.rope.dimension_count': 4,
  'llama.rope.scaling.type': 'linear',
  'llama.rope.scaling.factor': 2,
  'llama.vocab_size': tokens.length,
  'general.sampling.temp': 0.5,
  'tokenizer.ggml.model': 'llama',
  'tokenizer.ggml.pre': 'llama-bpe',
  'tokenizer.ggml.tokens': tokens,
  'tokenizer.ggml.scores': tokens.map((_, i) => -i),
  'tokenizer.ggml.token_type': tokens.map((_, i) => [2, 3, 3][i] ?? 1),
  'tokenizer.ggml.merges': ['a b', 'ab c'],
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
  'tokenizer.ggml.add_bos_token': true,
  'tokenizer.chat_template': '{{ messages }}',
};

export function fuzz(data: Buffer): void {
  const source = new ByteSource(data);
  const isRaw = source.below(3) === 0;
  const bytes = isRaw ? source.rest() : encodeGguf(editedJson(metadata, source), source);
  const file = writeScratch('model.gguf', bytes);
  const gguf = runCase(() => readGguf(file));
  if (gguf === undefined) return;
  for (const { name, offset, sizeBytes } of gguf.tensors.values())
    require(offset + sizeBytes <= bytes.length, `tensor ${name} lies outside of its file`);
  checkModel(gguf);
  checkTokenizer(gguf);
}

function checkModel(gguf: GgufFile): void {
  requireFinite(runCase(() => parseGgufModel(gguf, {}))?.config);
  requireFinite(runCase(() => parseGenerationDefaults(ggufGenerationConfig(gguf), 'model.gguf')));
}

function checkTokenizer(gguf: GgufFile): void {
  runCase(() => {
    const tokenizer = new TextTokenizer(ggufDefinition(gguf.metadata));
    const ids = tokenizer.encode('abc ab é😀\n<s>');
    require(ids.every((id) => Number.isInteger(id) && id >= 0), `encoded to ${ids.join()}`);
    tokenizer.decode(ids);
    tokenizer.decode([0, 1, 2, 5, 1000]);
  });
}

/** Little-endian writer of the format; values that it has no type for become their text. */
function encodeGguf(edited: unknown, source: ByteSource): Uint8Array {
  const parts: Uint8Array[] = [];
  const u32 = (value: number) => parts.push(new Uint8Array(Uint32Array.of(value).buffer));
  const u64 = (value: number) =>
    parts.push(new Uint8Array(BigUint64Array.of(BigInt(Math.trunc(value))).buffer));
  const string = (text: string) => {
    const bytes = Buffer.from(text);
    u64(bytes.length);
    parts.push(bytes);
  };
  const entries = typeof edited === 'object' && edited !== null ? Object.entries(edited) : [];
  u32(0x46554747);
  u32(source.pick([3, 3, 3, 2, 1]));
  u64(2);
  u64(entries.length);
  for (const [key, value] of entries) {
    string(key);
    writeValue(value);
  }
  writeTensor('token_embd.weight', [8, tokens.length], 0, 0);
  writeTensor(
    source.pick(['output.weight', 'rope_freqs.weight', 'x']),
    [2, 1],
    source.pick([0, 0, 1, 8, 12, 99]),
    704,
  );
  parts.push(new Uint8Array(64 + 4 * 8 * tokens.length + 1024));
  return Buffer.concat(parts);

  function writeTensor(name: string, shape: readonly number[], type: number, offset: number): void {
    string(name);
    u32(shape.length);
    shape.forEach(u64);
    u32(type);
    u64(offset);
  }
  function writeValue(value: unknown, depth = 0): void {
    const type = valueType(value);
    u32(type);
    writeBody(type, value, depth);
  }
  function writeBody(type: number, value: unknown, depth: number): void {
    if (type === 9) {
      const items = value as unknown[];
      const itemType = items.length > 0 ? valueType(items[0]) : 4;
      u32(itemType);
      u64(items.length);
      for (const item of items)
        writeBody(itemType, valueType(item) === itemType ? item : fallback(itemType), depth + 1);
    } else if (type === 8) string(typeof value === 'string' ? value : (JSON.stringify(value) ?? ''));
    else if (type === 7) parts.push(Uint8Array.of(value === true ? 1 : 0));
    else if (type === 12) parts.push(new Uint8Array(Float64Array.of(value as number).buffer));
    else u32(value as number);
  }
}

function valueType(value: unknown): number {
  if (Array.isArray(value)) return 9;
  if (typeof value === 'boolean') return 7;
  if (typeof value !== 'number') return 8;
  return Number.isInteger(value) && value >= 0 && value < 2 ** 32 ? 4 : 12;
}

function fallback(type: number): unknown {
  return type === 9 ? [] : type === 8 ? '' : 0;
}
