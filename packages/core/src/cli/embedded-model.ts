/** The model that is served when none is named: a package beside this one. */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { TenonError } from '../errors.js';

const packageName = '@tenon/model-stories';

export const embeddedModelName = 'tenon-stories-6m';

/** Its folder, as the working directory or this package resolves it. */
export function findEmbeddedModel(cwd = process.cwd()): string {
  for (const from of [pathToFileURL(join(cwd, 'package.json')).href, import.meta.url]) {
    const manifest = tryResolve(from);
    if (manifest !== undefined) return join(dirname(manifest), 'model');
  }
  throw new TenonError(
    'config.model-not-found',
    `no model is named, and the embedded one is not installed; name a folder, GGUF file or hub id, or install ${packageName}`,
  );
}

function tryResolve(from: string): string | undefined {
  try {
    return createRequire(from).resolve(`${packageName}/package.json`);
  } catch {
    return undefined;
  }
}
