/** A folder in memory for the files of a case. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const scratchFolder = mkdtempSync('/dev/shm/tenon-fuzz-');
process.on('exit', () => rmSync(scratchFolder, { recursive: true, force: true }));

export function writeScratch(name: string, bytes: Uint8Array | string): string {
  const file = join(scratchFolder, name);
  writeFileSync(file, bytes);
  return file;
}
