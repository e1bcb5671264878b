/**
 * safetensors: u64 header length, a JSON header { name: { dtype, shape, data_offsets: [begin, end] } }, then the data.
 * Only headers are read here; the data stays in the file.
 */
import { open, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { CheckpointDtype, TensorLocation } from '../backend/index.js';
import { TenonError } from '../errors.js';
import { isJsonObject, type JsonObject } from './fields.js';
import { parseJsonObject, tryReadJsonObject } from './json-file.js';
import { tryCountElements } from './tensor-bytes.js';

export interface TensorTable {
  readonly files: readonly string[];
  readonly locations: ReadonlyMap<string, TensorLocation>;
  /** Tensors of types that no backend loads (integers, 8-bit floats): name to type. */
  readonly foreignDtypes: ReadonlyMap<string, string>;
}

/** As the reference implementation has it: enough for a million tensors. */
const maxHeaderBytes = 100_000_000;

/** Bits of one element. */
const dtypeBits: Readonly<Record<string, number>> = {
  BOOL: 8, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8,
  F4: 4, F6_E2M3: 6, F6_E3M2: 6,
  I16: 16, U16: 16, F16: 16, BF16: 16, I32: 32, U32: 32, F32: 32,
  I64: 64, U64: 64, F64: 64, C64: 64,
}; // prettier-ignore
const loadable: readonly string[] = ['F32', 'F16', 'BF16'] satisfies readonly CheckpointDtype[];

/** Tensors of a model folder: model.safetensors, or the shards that model.safetensors.index.json names. */
export async function readSafetensorsFolder(folder: string): Promise<TensorTable> {
  const names = await readdir(folder);
  if (names.includes('model.safetensors')) return readSafetensors([join(folder, 'model.safetensors')]);
  const indexFile = join(folder, 'model.safetensors.index.json');
  const index = await tryReadJsonObject(indexFile, 'config.weights-invalid');
  if (index === undefined) throw noWeights(folder, names);
  const weightMap = parseShardIndex(index, indexFile);
  const shards = [...new Set(Object.values(weightMap))].toSorted();
  refuseMissing(folder, shards, names);
  const table = await readSafetensors(shards.map((shard) => join(folder, shard)));
  for (const [name, shard] of Object.entries(weightMap)) {
    if (!table.locations.has(name) && !table.foreignDtypes.has(name)) {
      throw invalid(join(folder, shard), `has no tensor ${name}, though ${basename(indexFile)} says so`);
    }
  }
  return table;
}

/** Shard file of every tensor. */
export function parseShardIndex(index: JsonObject, source: string): Readonly<Record<string, string>> {
  const map = index['weight_map'];
  if (!isJsonObject(map)) throw invalid(source, 'has no weight_map object');
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard)) {
      throw invalid(
        source,
        `names ${JSON.stringify(shard)} as the file of ${name}; expected a .safetensors file name`,
      );
    }
  }
  return map as Record<string, string>;
}

async function readSafetensors(files: readonly string[]): Promise<TensorTable> {
  const locations = new Map<string, TensorLocation>();
  const foreignDtypes = new Map<string, string>();
  for (const file of files) {
    for (const tensor of await readHeader(file)) {
      if (locations.has(tensor.name) || foreignDtypes.has(tensor.name)) {
        throw invalid(file, `holds tensor ${tensor.name}, which another file holds too`);
      }
      if (loadable.includes(tensor.dtype)) {
        locations.set(tensor.name, { ...tensor, dtype: tensor.dtype as CheckpointDtype });
      } else foreignDtypes.set(tensor.name, tensor.dtype);
    }
  }
  return { files, locations, foreignDtypes };
}

type HeaderTensor = Omit<TensorLocation, 'dtype'> & { readonly dtype: string };

async function readHeader(file: string): Promise<readonly HeaderTensor[]> {
  const { text, dataOffset, fileBytes } = await readHeaderText(file);
  const header = parseJsonObject(text, `header of ${file}`, 'config.weights-invalid');
  const tensors = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, entry]) => parseEntry(file, name, entry, dataOffset, fileBytes));
  checkCoverage(file, tensors, dataOffset, fileBytes);
  return tensors;
}

async function readHeaderText(
  file: string,
): Promise<{ text: string; dataOffset: number; fileBytes: number }> {
  const handle = await open(file).catch((error: Error) => {
    throw invalid(file, `cannot be read: ${error.message}`);
  });
  try {
    const fileBytes = (await handle.stat()).size;
    if (fileBytes < 8) throw invalid(file, `has ${fileBytes} bytes; a safetensors file has at least 8`);
    const prefix = Buffer.alloc(8);
    await handle.read(prefix, 0, 8, 0);
    const headerBytes = Number(prefix.readBigUInt64LE());
    if (headerBytes > fileBytes - 8 || headerBytes > maxHeaderBytes) {
      throw invalid(file, `announces a header of ${headerBytes} bytes, but has ${fileBytes} bytes in all`);
    }
    const header = Buffer.alloc(headerBytes);
    const { bytesRead } = await handle.read(header, 0, headerBytes, 8);
    if (bytesRead !== headerBytes) throw invalid(file, `ended while its header was read`);
    return { text: header.toString('utf8'), dataOffset: 8 + headerBytes, fileBytes };
  } finally {
    await handle.close();
  }
}

function parseEntry(
  file: string,
  name: string,
  entry: unknown,
  dataOffset: number,
  fileBytes: number,
): HeaderTensor {
  const { dtype, shape, data_offsets: offsets } = isJsonObject(entry) ? entry : {};
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypeBits, dtype)) {
    throw invalid(
      file,
      `tensor ${name} has dtype ${JSON.stringify(dtype)}; expected one of safetensors' types`,
    );
  }
  const numElements = Array.isArray(shape) ? tryCountElements(shape) : undefined;
  if (numElements === undefined) {
    throw invalid(file, `tensor ${name} has shape ${JSON.stringify(shape)}; expected a list of counts`);
  }
  const [begin, end] = Array.isArray(offsets) && offsets.length === 2 ? (offsets as unknown[]) : [];
  if (!isOffset(begin) || !isOffset(end) || end < begin) {
    throw invalid(file, `tensor ${name} has data_offsets ${JSON.stringify(offsets)}; expected [begin, end]`);
  }
  const expectedBytes = (numElements * dtypeBits[dtype]!) / 8;
  if (end - begin !== expectedBytes) {
    throw invalid(
      file,
      `tensor ${name} has ${end - begin} bytes; ${dtype} [${String(shape)}] takes ${expectedBytes}`,
    );
  }
  if (dataOffset + end > fileBytes) {
    throw invalid(
      file,
      `tensor ${name} ends at byte ${dataOffset + end}, but the file has ${fileBytes}: it is truncated, copy or download it again`,
    );
  }
  return { name, file, offset: dataOffset + begin, sizeBytes: end - begin, dtype, shape: shape as number[] };
}

const isOffset = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** The format demands that the tensors fill the file's data exactly, so that nothing is hidden and nothing shared. */
function checkCoverage(
  file: string,
  tensors: readonly HeaderTensor[],
  dataOffset: number,
  fileBytes: number,
): void {
  const ordered = tensors.toSorted((a, b) => a.offset - b.offset || a.sizeBytes - b.sizeBytes);
  let end = dataOffset;
  let previous = 'the header';
  for (const tensor of ordered) {
    if (tensor.offset !== end) {
      const how = tensor.offset < end ? 'overlaps' : 'leaves a gap after';
      throw invalid(
        file,
        `tensor ${tensor.name} at byte ${tensor.offset} ${how} ${previous}, which ends at ${end}`,
      );
    }
    end += tensor.sizeBytes;
    previous = tensor.name;
  }
  if (end !== fileBytes) throw invalid(file, `has ${fileBytes} bytes; its tensors end at ${end}`);
}

function refuseMissing(folder: string, shards: readonly string[], names: readonly string[]): void {
  const missing = shards.filter((shard) => !names.includes(shard));
  if (missing.length === 0) return;
  throw new TenonError(
    'config.weights-missing',
    `${folder} lacks ${missing.length} of its ${shards.length} weight files: ${missing.join(', ')}; copy or download them again`,
  );
}

function noWeights(folder: string, names: readonly string[]): TenonError {
  const pickled = names.filter((name) => /\.(bin|pt|pth|ckpt)$/.test(name));
  const hint =
    pickled.length > 0
      ? `; ${pickled[0]} is a Python pickle, which can run code and is not read: convert it to safetensors`
      : '';
  return new TenonError(
    'config.weights-missing',
    `${folder} has neither model.safetensors nor model.safetensors.index.json${hint}`,
  );
}

function invalid(file: string, what: string): TenonError {
  return new TenonError('config.weights-invalid', `${file} ${what}`);
}
