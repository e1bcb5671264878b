/** A change to what published backends rely on has to change its version. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

import { contractParts, type ContractPart } from '../scripts/contract-parts.js';
import { fileOf, findChange, snapshotFolder, writeSnapshots } from '../scripts/contract-snapshots.js';

const parts = contractParts();

it.each(parts)('$name is what version $version says', (part) => {
  expect(findChange(part)).toBeUndefined();
});

it('numbers of plans are never used again', () => {
  const files = readdirSync(snapshotFolder).filter((file) => file.startsWith('numbers@'));
  const minors = files.toSorted((a, b) => minorOf(a) - minorOf(b));
  const lists = minors.map((file) => JSON.parse(readFileSync(join(snapshotFolder, file), 'utf8')) as Record<string, string[]>); // prettier-ignore
  expect(lists.length).toBeGreaterThan(1);
  for (const [i, newer] of lists.entries())
    for (const [name, older] of Object.entries(lists[i - 1] ?? {}))
      expect(newer[name]?.slice(0, older.length), `${name} of ${minors[i]}`).toEqual(older);
});

const minorOf = (file: string) => Number(/@\d+\.(\d+)\./.exec(file)![1]);

describe('a part that changes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tenon-snapshots-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const step: ContractPart = {
    name: 'step',
    version: '1',
    raise: 'stepVersion',
    content: { header: ['magic', 'reserved1'] },
  };
  const changed = (content: object, version = '1') => findChange({ ...step, version, content }, folder);

  it('needs a new version, and a new version a snapshot', () => {
    expect(findChange(step, folder)).toMatch(/no snapshot: npm run snapshot/);
    expect(writeSnapshots([step], false, folder)).toEqual(['step@1.json']);
    expect(findChange(step, folder)).toBeUndefined();
    expect(changed({ header: ['magic', 'version'] })).toBeUndefined();
    expect(changed({ header: ['word', 'reserved1'] })).toMatch(/step is not what its version 1 was: undo the change, or raise stepVersion/); // prettier-ignore
    expect(changed({ header: ['magic', 'reserved1', 'more'] })).toMatch(/raise stepVersion/);
    expect(changed({ header: ['word'] }, '2')).toMatch(/version 2, of which there is no snapshot/);
  });

  it('is written over only on purpose', () => {
    const other = { ...step, content: { header: ['word'] } };
    expect(writeSnapshots([other], false, folder)).toEqual([]);
    expect(writeSnapshots([other], true, folder)).toEqual([fileOf(other)]);
    expect(findChange(other, folder)).toBeUndefined();
  });
});
