/** A new backend from the template that comes with core: a copy in which every name is the new one's. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { TenonError } from '../errors.js';
import { tenonVersion } from '../version.js';

/** The id and the package of the template, as they are spelled in its files. */
const templateId = 'template';

/** Of the template's folder, what belongs to this repository or is made by building. */
const notCopied = ['node_modules', 'examples', 'build', 'packed', 'conformance.json', 'package-lock.json'];

/** Packing for npm leaves files of this name out, so they travel under another. */
const ignoreFile = { here: '.gitignore', packed: 'gitignore' };

/**
 * Writes the backend `name` into `folder`, which must not exist or be empty: package `tenon-backend-<name>`, id `<name>`, addon and C++
 * namespace `tenon_backend_<name>`.
 * @throws config.invalid-option for a name or folder that cannot be used
 */
export function createBackend(name: string, folder: string, template = packedTemplate()): void {
  checkName(name);
  if (existsSync(folder) && readdirSync(folder).length > 0)
    throw invalid(`${folder} exists and is not empty; name another folder with --folder`);
  copyTemplate(template, folder);
  for (const file of filesIn(folder)) {
    const text = readFileSync(file, 'utf8');
    const renamed = rename(text, name);
    if (renamed !== text) writeFileSync(file, renamed);
  }
  pinCore(join(folder, 'package.json'));
}

/** The template without what is not to be copied: from the repository into core's dist, and from there to the user. */
export function copyTemplate(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (notCopied.includes(entry.name)) continue;
    const target = join(to, entry.name === ignoreFile.packed ? ignoreFile.here : entry.name);
    if (entry.isDirectory()) copyTemplate(join(from, entry.name), target);
    else cpSync(join(from, entry.name), target);
  }
}

function packedTemplate(): string {
  return join(dirname(createRequire(import.meta.url).resolve('@tenon/core/package.json')), 'dist/template');
}

function checkName(name: string): void {
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(name) || name.length > 40)
    throw invalid(
      `'${name}' cannot be the name of a backend; expected lower-case letters, digits and single '-', a letter first, such as my-npu`,
    );
  if (name.startsWith('tenon-') || ['auto', 'cpu', 'sim', 'tenon', templateId].includes(name))
    throw invalid(
      `'${name}' cannot be the name of a backend: it is Tenon's; name the hardware, such as my-npu`,
    );
}

function rename(text: string, name: string): string {
  return text
    .replaceAll(`tenon-backend-${templateId}`, `tenon-backend-${name}`)
    .replaceAll(`tenon_backend_${templateId}`, `tenon_backend_${name.replaceAll('-', '_')}`)
    .replaceAll(new RegExp(`(["'\`]|--(?:device|backend) )${templateId}(?=["'\`:\\s]|$)`, 'gm'), `$1${name}`);
}

/** The packages to develop with are those of the core that made the copy. */
function pinCore(path: string): void {
  const manifest = JSON.parse(readFileSync(path, 'utf8')) as { devDependencies: Record<string, string> };
  for (const dependency of ['@tenon/core', '@tenon/model-stories'])
    manifest.devDependencies[dependency] = `^${tenonVersion}`;
  writeFileSync(path, `${JSON.stringify(manifest, null, 2)}\n`);
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

const invalid = (message: string) => new TenonError('config.invalid-option', message);
