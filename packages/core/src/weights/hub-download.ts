/** One file of the hub's cache: downloaded in one stream, continued where it broke off, checked before it counts. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, mkdir, open, rename, rm, stat, symlink, type FileHandle } from 'node:fs/promises';
import { dirname, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TenonError } from '../errors.js';

export interface DownloadProgress {
  /** `org/name/file`. */
  readonly file: string;
  readonly receivedBytes: number;
  readonly totalBytes: number;
}

export interface BlobDownload {
  /** For messages and progress. */
  readonly name: string;
  readonly url: string;
  /** Where the finished file goes; `<blob>.incomplete` holds what there is until then. */
  readonly blob: string;
  readonly sizeBytes: number;
  /** git-sha1: of git's own `blob <size>\0` and the contents. */
  readonly checksum: { readonly kind: 'sha256' | 'git-sha1'; readonly hex: string };
  /** Throws on anything but success. */
  readonly fetch: typeof fetch;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
}

/** Failures in a row, without a byte in between, after which a download is given up. */
const maxFailures = 5;
const maxDelayMs = 20_000;
/** Without a byte for this long, a connection counts as broken. */
const stallMs = 60_000;

/** @throws `config.download-failed`; what was received stays for the next attempt, unless it is wrong. */
export async function downloadBlob(download: BlobDownload): Promise<void> {
  const { blob, sizeBytes } = download;
  if ((await sizeOf(blob)) === sizeBytes) return;
  await mkdir(dirname(blob), { recursive: true });
  const partial = `${blob}.incomplete`;
  const wasResumed = ((await sizeOf(partial)) ?? 0) > 0;
  await completePartial(download, partial);
  if (!(await matches(partial, download))) {
    if ((await sizeOf(blob)) === sizeBytes) return; // Another process was faster and has renamed it.
    await rm(partial, { force: true });
    // What an earlier run left may be at fault: once from the start.
    if (wasResumed) return downloadBlob(download);
    throw damaged(download);
  }
  await rename(partial, blob).catch(async (error: unknown) => {
    if ((await sizeOf(blob)) !== sizeBytes) throw writeError(download, error);
  });
}

/** Links `snapshots/<commit>/<file>` to the blob, relatively, so that the cache can be moved. */
export async function linkBlob(blob: string, link: string): Promise<void> {
  const target = relative(dirname(link), blob);
  try {
    await symlink(target, link);
  } catch (error) {
    const exists = (error as NodeJS.ErrnoException).code === 'EEXIST';
    if (exists && (await sizeOf(link)) !== undefined) return;
    await rm(link, { force: true });
    // A dangling link is made again; else the file system has no links.
    await (exists ? symlink(target, link) : copyFile(blob, link));
  }
}

async function completePartial(download: BlobDownload, partial: string): Promise<void> {
  let failures = 0;
  for (;;) {
    const before = (await sizeOf(partial)) ?? 0;
    if (before > download.sizeBytes) await rm(partial);
    try {
      await receiveRest(download, partial);
      return;
    } catch (error) {
      const received = (await sizeOf(partial)) ?? 0;
      failures = received > before ? 1 : failures + 1;
      if (!isTransient(error) || failures >= maxFailures) throw asDownloadError(download, error, received);
      await sleep(
        Math.min(maxDelayMs, ((error as TenonError).retryAfterSeconds ?? 0.2) * 1000 * 2 ** (failures - 1)),
      );
    }
  }
}

/**
 * Writes the bytes that `partial` lacks, each at its own place. Two processes that download the same file so write the
 * same bytes, and neither harms the other.
 */
async function receiveRest(download: BlobDownload, partial: string): Promise<void> {
  const handle = await open(partial, 'r+').catch(() => open(partial, 'w+'));
  try {
    const start = (await handle.stat()).size;
    if (start < download.sizeBytes) await receive(download, handle, start);
  } finally {
    await handle.close();
  }
}

async function receive(download: BlobDownload, handle: FileHandle, start: number): Promise<void> {
  const { name, url, sizeBytes, onProgress } = download;
  const stalled = new AbortController();
  const timer = setTimeout(() => stalled.abort(new Error(`no data for ${stallMs / 1000} s`)), stallMs);
  try {
    // A compressed answer would have other offsets.
    const headers = { 'Accept-Encoding': 'identity', ...(start > 0 && { Range: `bytes=${start}-` }) };
    const response = await download.fetch(url, { headers, signal: stalled.signal });
    // 200: the server knows no ranges and sends all.
    let position = response.status === 206 ? start : 0;
    for await (const chunk of response.body ?? []) {
      timer.refresh();
      if (position + chunk.length > sizeBytes) throw tooLong(download);
      await writeAll(handle, chunk, position);
      position += chunk.length;
      onProgress?.({ file: name, receivedBytes: position, totalBytes: sizeBytes });
    }
    if (position < sizeBytes) throw new Error(`the connection ended at byte ${position} of ${sizeBytes}`);
  } finally {
    clearTimeout(timer);
  }
}

async function writeAll(handle: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < chunk.length;) {
    done += (await handle.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
  }
}

function damaged({ name, checksum }: BlobDownload): TenonError {
  return new TenonError(
    'config.download-failed',
    `${name} arrived damaged: its ${checksum.kind} is not ${checksum.hex}; the file was removed, try again`,
  );
}

function tooLong({ name, sizeBytes }: BlobDownload): TenonError {
  return new TenonError(
    'config.download-failed',
    `${name} is longer than the ${sizeBytes} bytes that the hub announced`,
  );
}

/** Refusals by the hub and a full disk stay as they are; a broken connection or an overloaded server passes. */
function isTransient(error: unknown): boolean {
  if (error instanceof TenonError) {
    return (
      error.code === 'config.download-failed' &&
      (error.retryAfterSeconds !== undefined || error.cause !== undefined)
    );
  }
  return !isDiskError(error);
}

const isDiskError = (error: unknown) =>
  ['ENOSPC', 'EDQUOT', 'EACCES', 'EROFS', 'EPERM', 'EIO', 'EFBIG'].includes(
    (error as NodeJS.ErrnoException).code ?? '',
  );

function asDownloadError(download: BlobDownload, error: unknown, receivedBytes: number): TenonError {
  if (error instanceof TenonError) return error;
  if (isDiskError(error)) return writeError(download, error);
  const cause = ((error as Error).cause ?? error) as Error;
  return new TenonError(
    'config.download-failed',
    `${download.name} broke off at byte ${receivedBytes} of ${download.sizeBytes}: ${cause.message}; start again to continue there`,
    { cause: error },
  );
}

function writeError(download: BlobDownload, error: unknown): TenonError {
  const remedy = 'make room, or set HF_HUB_CACHE to a folder with more';
  return new TenonError(
    'config.download-failed',
    `cannot write ${download.name} to ${dirname(download.blob)}: ${(error as Error).message}; ${remedy}`,
    { cause: error },
  );
}

async function matches(file: string, { sizeBytes, checksum }: BlobDownload): Promise<boolean> {
  if ((await sizeOf(file)) !== sizeBytes) return false;
  const hash = createHash(checksum.kind === 'sha256' ? 'sha256' : 'sha1');
  if (checksum.kind === 'git-sha1') hash.update(`blob ${sizeBytes}\0`);
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 20 }))
      hash.update(chunk as Buffer);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  return hash.digest('hex') === checksum.hex;
}

async function sizeOf(file: string): Promise<number | undefined> {
  return (await stat(file).catch(() => undefined))?.size;
}
