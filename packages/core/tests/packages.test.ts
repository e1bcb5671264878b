/** What installing @tenon/core brings along, by the lock file: few packages, none of which runs anything when installed. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { expect, it } from 'vitest';

interface LockedPackage {
  readonly resolved?: string;
  readonly hasInstallScript?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const lockFile = join(import.meta.dirname, '../../../package-lock.json');
const { packages } = JSON.parse(readFileSync(lockFile, 'utf8')) as {
  packages: Readonly<Record<string, LockedPackage>>;
};

/** Where Node finds `name` from the package at `path`: beside it, or in a folder above. */
function resolve(name: string, path: string): string {
  for (let folder = path; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (packages[candidate] !== undefined) return candidate;
    if (folder === '.') throw new Error(`${path} needs ${name}, which is not locked`);
  }
}

/** Paths of all packages that the one at `path` needs in production. */
function productionTree(path: string, found = new Set<string>()): Set<string> {
  const { dependencies, optionalDependencies } = packages[path]!;
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
    const dependency = resolve(name, path);
    if (found.has(dependency)) continue;
    found.add(dependency);
    productionTree(dependency, found);
  }
  return found;
}

it('has at most 40 packages in production, and no install scripts', () => {
  const tree = [...productionTree('packages/core')];
  expect(tree.length).toBeGreaterThan(1);
  expect(tree.length, tree.join('\n')).toBeLessThanOrEqual(40);
  expect(tree.filter((path) => packages[path]!.hasInstallScript === true)).toEqual([]);
});

it('names no registry in the lock file', () => {
  expect(Object.keys(packages).filter((path) => packages[path]!.resolved?.startsWith('http'))).toEqual([]);
});

it('carries the licences of the packages whose code is in its own', () => {
  const notices = readFileSync(join(import.meta.dirname, '../dist/THIRD-PARTY-NOTICES.txt'), 'utf8');
  for (const name of ['fastify', 'pino', 'tsyringe', 'ajv', '@huggingface/tokenizers', 'typebox'])
    expect(notices).toMatch(new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(`, 'm'));
});
