/** Headers of safetensors files, raw or as an edited header, and the index of shards. */
import { parseShardIndex, readSafetensorsFolder } from '../../packages/core/src/weights/safetensors.js';
import { parseJsonObject } from '../../packages/core/src/weights/json-file.js';
import { ByteSource } from './byte-source.js';
import { editedJson } from './edited-json.js';
import { require, runCase, runCaseAsync } from './oracle.js';
import { scratchFolder, writeScratch } from './scratch-folder.js';

const header = {
  __metadata__: { format: 'pt' },
  a: { dtype: 'F32', shape: [2, 4], data_offsets: [0, 32] },
  b: { dtype: 'BF16', shape: [8], data_offsets: [32, 48] },
  c: { dtype: 'I64', shape: [], data_offsets: [48, 56] },
  d: { dtype: 'F8_E4M3', shape: [0, 3], data_offsets: [56, 56] },
};
const index = { metadata: { total_size: 56 }, weight_map: { a: 'model.safetensors', b: 'x.safetensors' } };

export async function fuzz(data: Buffer): Promise<void> {
  const source = new ByteSource(data);
  switch (source.below(4)) {
    case 0:
      return readFile(source.rest());
    case 1: {
      const edited = editedJson(index, source);
      runCase(() =>
        parseShardIndex(parseJsonObject(JSON.stringify(edited), 'index', 'config.weights-invalid'), 'index'),
      );
      return;
    }
    case 2:
      return readFile(withLength(source.rest(), 56));
    default:
      return readFile(
        withLength(Buffer.from(JSON.stringify(editedJson(header, source)) ?? ''), 56 + source.below(3)),
      );
  }
}

function withLength(text: Uint8Array, dataBytes: number): Uint8Array {
  const file = Buffer.alloc(8 + text.length + dataBytes);
  file.writeBigUInt64LE(BigInt(text.length));
  file.set(text, 8);
  return file;
}

async function readFile(bytes: Uint8Array): Promise<void> {
  writeScratch('model.safetensors', bytes);
  const table = await runCaseAsync(() => readSafetensorsFolder(scratchFolder));
  for (const { name, offset, sizeBytes } of table?.locations.values() ?? []) {
    require(offset >= 8 && offset + sizeBytes <= bytes.length, `tensor ${name} lies outside of its file`);
  }
}
