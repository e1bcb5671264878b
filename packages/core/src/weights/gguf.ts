/**
 * GGUF, versions 2 and 3: magic, version, tensor count, metadata count, metadata, tensor table, padding, data.
 * Knows the file format, not the models in it; the data stays in the file.
 */
import { checkpointDtypes, type CheckpointDtype, type TensorLocation } from '../backend/index.js';
import { TenonError } from '../errors.js';
import { ByteReader } from './byte-reader.js';
import { blockLayouts, tryCountElements } from './tensor-bytes.js';

export interface GgufFile {
  readonly file: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Keyed by GGUF's own names; shapes are row-major, so reversed against the file. */
  readonly tensors: ReadonlyMap<string, TensorLocation>;
}

const magic = 0x46554747; // 'GGUF'
const maxKeyBytes = 65_535;
const maxArrayLength = 2 ** 24;
const maxArrayDepth = 4;
const maxMetadataBytes = 2 ** 28;
const maxDims = 4;
const maxTensors = 2 ** 20;

/** ggml's tensor types, by number. Those outside `checkpointDtypes` are known by name only. */
const tensorTypes: Readonly<Record<number, string>> = {
  0: 'F32', 1: 'F16', 2: 'Q4_0', 3: 'Q4_1', 6: 'Q5_0', 7: 'Q5_1', 8: 'Q8_0', 9: 'Q8_1', 10: 'Q2_K', 11: 'Q3_K',
  12: 'Q4_K', 13: 'Q5_K', 14: 'Q6_K', 15: 'Q8_K', 16: 'IQ2_XXS', 17: 'IQ2_XS', 18: 'IQ3_XXS', 19: 'IQ1_S',
  20: 'IQ4_NL', 21: 'IQ3_S', 22: 'IQ2_S', 23: 'IQ4_XS', 24: 'I8', 25: 'I16', 26: 'I32', 27: 'I64', 28: 'F64',
  29: 'IQ1_M', 30: 'BF16', 34: 'TQ1_0', 35: 'TQ2_0', 39: 'MXFP4', 40: 'NVFP4', 41: 'Q1_0',
}; // prettier-ignore

/**
 * The file's metadata and tensor table.
 * @throws `config.weights-invalid` where the file is damaged, `unsupported.quantization` for other block formats.
 */
export function readGguf(file: string): GgufFile {
  const reader = new ByteReader(file);
  try {
    return parse(reader);
  } finally {
    reader.close();
  }
}

function parse(reader: ByteReader): GgufFile {
  if (reader.remaining < 4 || reader.u32() !== magic)
    throw reader.invalid('is no GGUF file: it does not begin with GGUF; name a model folder or a .gguf file');
  checkVersion(reader);
  const numTensors = reader.u64();
  const metadata = readMetadata(reader);
  const alignment = readAlignment(reader, metadata);
  // A table entry takes 24 bytes and more.
  if (numTensors > Math.min(maxTensors, reader.remaining / 24))
    throw reader.invalid(`announces ${numTensors} tensors, more than it can hold`);
  const entries = Array.from({ length: numTensors }, () => readTensorEntry(reader));
  const dataOffset = Math.ceil(reader.position / alignment) * alignment;
  const tensors = new Map<string, TensorLocation>();
  for (const entry of entries) {
    if (tensors.has(entry.name)) throw reader.invalid(`has two tensors named ${entry.name}`);
    tensors.set(entry.name, locate(reader, entry, dataOffset, alignment));
  }
  refuseOverlaps(reader, [...tensors.values()]);
  return { file: reader.file, metadata, tensors };
}

function checkVersion(reader: ByteReader): void {
  const version = reader.u32();
  if (version === 2 || version === 3) return;
  const swapped = version === 0x02000000 || version === 0x03000000;
  const found = swapped ? 'big-endian' : `of version ${version}`;
  throw reader.invalid(`is ${found}; expected little-endian GGUF of version 2 or 3: convert the model again`);
}

function readMetadata(reader: ByteReader): Readonly<Record<string, unknown>> {
  const count = reader.u64();
  const start = reader.position;
  const metadata = new Map<string, unknown>();
  for (let i = 0; i < count; i++) {
    const key = reader.string();
    if (key.length === 0 || key.length > maxKeyBytes)
      throw reader.invalid(`has a metadata key of ${key.length} characters`);
    if (metadata.has(key)) throw reader.invalid(`has the metadata key ${key} twice`);
    metadata.set(key, readValue(reader, key, reader.u32(), 0));
    if (reader.position - start > maxMetadataBytes)
      throw reader.invalid(`has over ${maxMetadataBytes} bytes of metadata`);
  }
  return Object.fromEntries(metadata);
}

interface ValueType {
  readonly minBytes: number;
  readonly read: (reader: ByteReader) => unknown;
}

/** Metadata types by number; 9 is the array, see readValue. */
const valueTypes: Readonly<Record<number, ValueType>> = {
  0: { minBytes: 1, read: (reader) => reader.u8() },
  1: { minBytes: 1, read: (reader) => reader.i8() },
  2: { minBytes: 2, read: (reader) => reader.u16() },
  3: { minBytes: 2, read: (reader) => reader.i16() },
  4: { minBytes: 4, read: (reader) => reader.u32() },
  5: { minBytes: 4, read: (reader) => reader.i32() },
  6: { minBytes: 4, read: (reader) => reader.f32() },
  7: { minBytes: 1, read: (reader) => reader.u8() !== 0 },
  8: { minBytes: 8, read: (reader) => reader.string() },
  10: { minBytes: 8, read: (reader) => reader.u64() },
  11: { minBytes: 8, read: (reader) => reader.i64() },
  12: { minBytes: 8, read: (reader) => reader.f64() },
};
const arrayType = 9;
const arrayHeaderBytes = 12;

function readValue(reader: ByteReader, key: string, type: number, depth: number): unknown {
  if (type === arrayType) return readArray(reader, key, depth + 1);
  const valueType = valueTypes[type];
  if (valueType === undefined) throw reader.invalid(`has metadata ${key} of unknown type ${type}`);
  return valueType.read(reader);
}

function readArray(reader: ByteReader, key: string, depth: number): unknown[] {
  if (depth > maxArrayDepth)
    throw reader.invalid(`has metadata ${key} nested over ${maxArrayDepth} arrays deep`);
  const type = reader.u32();
  const length = reader.u64();
  const minBytes = type === arrayType ? arrayHeaderBytes : (valueTypes[type]?.minBytes ?? 1);
  if (length > maxArrayLength || length * minBytes > reader.remaining) {
    throw reader.invalid(`announces ${length} values for metadata ${key}, more than it can hold`);
  }
  const values: unknown[] = [];
  for (let i = 0; i < length; i++) values.push(readValue(reader, key, type, depth));
  return values;
}

/** The tensors' offsets are multiples of it. */
function readAlignment(reader: ByteReader, metadata: Readonly<Record<string, unknown>>): number {
  const alignment = metadata['general.alignment'] ?? 32;
  const valid =
    typeof alignment === 'number' &&
    alignment >= 1 &&
    alignment <= 2 ** 20 &&
    Number.isInteger(Math.log2(alignment));
  if (!valid) throw reader.invalid(`has general.alignment ${String(alignment)}; expected a power of two`);
  return alignment;
}

interface TensorEntry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: number;
  readonly relativeOffset: number;
}

function readTensorEntry(reader: ByteReader): TensorEntry {
  const name = reader.string();
  const numDims = reader.u32();
  if (numDims > maxDims)
    throw reader.invalid(`tensor ${name} has ${numDims} dimensions; expected at most ${maxDims}`);
  const shape = Array.from({ length: numDims }, () => reader.u64()).toReversed();
  return { name, shape, type: reader.u32(), relativeOffset: reader.u64() };
}

function locate(
  reader: ByteReader,
  entry: TensorEntry,
  dataOffset: number,
  alignment: number,
): TensorLocation {
  const { name, shape, relativeOffset } = entry;
  const dtype = tensorDtype(reader, entry);
  const layout = blockLayouts[dtype];
  const numElements = tryCountElements(shape);
  if (numElements === undefined || (shape.at(-1) ?? 1) % layout.elements !== 0) {
    throw reader.invalid(
      `tensor ${name} of ${dtype} has shape [${shape.join(', ')}]; expected rows of ${layout.elements}s`,
    );
  }
  if (relativeOffset % alignment !== 0) {
    throw reader.invalid(`tensor ${name} is at ${relativeOffset}; expected a multiple of ${alignment}`);
  }
  const offset = dataOffset + relativeOffset;
  const sizeBytes = (numElements / layout.elements) * layout.bytes;
  if (!Number.isSafeInteger(offset + sizeBytes) || offset + sizeBytes > reader.sizeBytes) {
    throw reader.invalid(
      `tensor ${name} takes ${sizeBytes} bytes at ${offset}, but the file has ${reader.sizeBytes}: it is truncated, copy or download it again`,
    );
  }
  return { name, file: reader.file, offset, sizeBytes, dtype, shape };
}

function tensorDtype(reader: ByteReader, { name, type }: TensorEntry): CheckpointDtype {
  const found = tensorTypes[type] ?? `number ${type}`;
  const dtype = checkpointDtypes.find((known) => known === found);
  if (dtype !== undefined) return dtype;
  throw new TenonError(
    'unsupported.quantization',
    `${reader.file}: tensor ${name} is stored as ${found}, which is not supported; supported: ${checkpointDtypes.join(', ')}`,
  );
}

function refuseOverlaps(reader: ByteReader, tensors: readonly TensorLocation[]): void {
  const ordered = tensors.filter((tensor) => tensor.sizeBytes > 0).toSorted((a, b) => a.offset - b.offset);
  for (let i = 1; i < ordered.length; i++) {
    const [previous, tensor] = [ordered[i - 1]!, ordered[i]!];
    if (tensor.offset < previous.offset + previous.sizeBytes) {
      throw reader.invalid(`tensor ${tensor.name} at byte ${tensor.offset} overlaps ${previous.name}`);
    }
  }
}
