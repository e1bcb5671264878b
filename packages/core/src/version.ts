/** The version in @tenon/core's package.json, found upwards of this file both in src and in dist. */
import { existsSync, readFileSync } from 'node:fs';

import { invariant } from './errors.js';

export const tenonVersion: string = readVersion();

function readVersion(): string {
  for (const up of ['../package.json', '../../package.json', './package.json']) {
    const file = new URL(up, import.meta.url);
    if (!existsSync(file)) continue;
    const manifest = JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string };
    if (manifest.name === '@tenon/core' && manifest.version !== undefined) return manifest.version;
  }
  invariant(false, '@tenon/core has no package.json');
}
