/** Reading tensors and file stamps from disk. */
import { open, stat } from 'node:fs/promises';
import type { TensorLocation } from '../backend/index.js';
import { TenonError } from '../errors.js';
import { dequantize } from './dequantize.js';

/** One read call takes less than 2 GiB. */
const maxReadBytes = 2 ** 30;

/** All values of the tensor in row-major order. */
export async function readTensor(location: TensorLocation): Promise<Float32Array> {
  return dequantize(location.dtype, await readBytes(location.file, location.offset, location.sizeBytes));
}

/** The values of the tensor of that name. `path` is the model's, for the message that there is none. */
export async function readNamed(
  locations: ReadonlyMap<string, TensorLocation>,
  name: string,
  path: string,
): Promise<Float32Array> {
  const location = locations.get(name);
  if (location === undefined) throw new TenonError('config.weights-missing', `${path} has no tensor ${name}`);
  return readTensor(location);
}

async function readBytes(file: string, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const handle = await open(file);
  try {
    for (let done = 0; done < length;) {
      const { bytesRead } = await handle.read(
        bytes,
        done,
        Math.min(length - done, maxReadBytes),
        offset + done,
      );
      if (bytesRead === 0) {
        throw new TenonError(
          'config.weights-invalid',
          `${file} ended at byte ${offset + done}, ${length - done} bytes early: it changed after it was opened`,
        );
      }
      done += bytesRead;
    }
  } finally {
    await handle.close();
  }
  return bytes;
}

/** Whether both hold the same values. Three windows are compared: weights that differ, differ everywhere. */
export async function sameContents(a: TensorLocation, b: TensorLocation): Promise<boolean> {
  if (a.dtype !== b.dtype || a.shape.join() !== b.shape.join()) return false;
  const windowBytes = Math.min(65_536, a.sizeBytes);
  const last = a.sizeBytes - windowBytes;
  for (const at of [0, Math.floor(last / 2), last]) {
    const [left, right] = await Promise.all(
      [a, b].map(({ file, offset }) => readBytes(file, offset + at, windowBytes)),
    );
    if (Buffer.compare(left!, right!) !== 0) return false;
  }
  return true;
}

export type FileStamps = ReadonlyMap<string, { readonly sizeBytes: number; readonly mtimeMs: number }>;

export async function stampFiles(files: readonly string[]): Promise<FileStamps> {
  const stamps = files.map(async (file) => {
    const { size, mtimeMs } = await stat(file);
    return [file, { sizeBytes: size, mtimeMs }] as const;
  });
  return new Map(await Promise.all(stamps));
}

/** @throws `config.weights-invalid` naming the file that is gone or has another size or time. */
export async function verifyStamps(stamps: FileStamps): Promise<void> {
  for (const [file, stamp] of stamps) {
    const now = await stat(file).catch(() => undefined);
    if (now?.size === stamp.sizeBytes && now.mtimeMs === stamp.mtimeMs) continue;
    throw new TenonError(
      'config.weights-invalid',
      `${file} changed after it was opened (${now?.size ?? 'no'} bytes now, ${stamp.sizeBytes} then); start again`,
    );
  }
}
