/** After tsup: dist/THIRD-PARTY-NOTICES.txt, the licences of the packages whose code is in dist; takes tsup's metafile away. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const metafile = join(dist, 'metafile-esm.json');
const { inputs } = JSON.parse(readFileSync(metafile, 'utf8')) as { inputs: Record<string, unknown> };

/** Folders of the packages that files of the bundle come from; paths are relative to this package. */
function bundledPackages(): string[] {
  const folders = Object.keys(inputs).map(
    (path) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1],
  );
  return [...new Set(folders.filter((folder) => folder !== undefined))].toSorted();
}

function noticeOf(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
    name: string;
    version: string;
    license?: string;
  };
  const file = readdirSync(folder).find((entry) => /^(licen[cs]e|copying)/i.test(entry));
  if (file === undefined && license === undefined) throw new Error(`${folder} names no licence`);
  const text = file === undefined ? '' : `\n${readFileSync(join(folder, file), 'utf8').trim()}\n`;
  return `${name} ${version} (${license ?? 'see below'})\n${text}`;
}

if (!existsSync(metafile)) throw new Error(`${metafile} is missing; run tsup first`);
const packages = bundledPackages();
const rule = `\n${'-'.repeat(80)}\n\n`;
writeFileSync(
  join(dist, 'THIRD-PARTY-NOTICES.txt'),
  `@tenon/core contains code of these packages.\n${rule}${packages.map(noticeOf).join(rule)}`,
);
rmSync(metafile);
