/** Snapshots of the contract's parts, one file for each version of each part, and how a part is held against its own. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import type { ContractPart } from './contract-parts.js';

export const snapshotFolder = join(import.meta.dirname, '../tests/contract-snapshots');

export const fileOf = ({ name, version, content }: ContractPart): string =>
  `${name}@${version}.${typeof content === 'string' ? 'txt' : 'json'}`;

const textOf = ({ content }: ContractPart): string =>
  typeof content === 'string' ? content : `${JSON.stringify(content, undefined, 1)}\n`;

const command = 'npm run snapshot --workspace @tenon/core';

/** What is wrong with a part, and what to do; undefined where its content is what its version says. */
export function findChange(part: ContractPart, folder = snapshotFolder): string | undefined {
  const path = join(folder, fileOf(part));
  if (!existsSync(path))
    return `${part.name} is at version ${part.version}, of which there is no snapshot: ${command}`;
  if (isSame(readFileSync(path, 'utf8'), textOf(part))) return undefined;
  return (
    `${part.name} is not what its version ${part.version} was: undo the change, or raise ${part.raise} and run ${command}; ` +
    `a version that no release has had may be redefined with ${command} -- --again`
  );
}

/** A reserved word of a layout may get a name, which is a new minor of the contract but no new layout. */
function isSame(snapshot: string, today: string): boolean {
  const [old, now] = [snapshot.split('\n'), today.split('\n')];
  return (
    old.length === now.length && old.every((line, i) => line === now[i] || /^\s*"reserved\d*",?$/.test(line))
  );
}

/** Writes the snapshots that are missing, with `again` also those that differ; names the files. */
export function writeSnapshots(
  parts: readonly ContractPart[],
  again: boolean,
  folder = snapshotFolder,
): readonly string[] {
  mkdirSync(folder, { recursive: true });
  const changed = parts.filter((part) => findChange(part, folder) !== undefined);
  const written = changed.filter((part) => again || !existsSync(join(folder, fileOf(part))));
  for (const part of written) writeFileSync(join(folder, fileOf(part)), textOf(part));
  return written.map(fileOf);
}
