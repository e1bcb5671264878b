import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { Binding } from './binding.js';
import { failure } from './failure.js';

/** Where the build puts the addon, as seen from src/ and from dist/. */
const addonPath = fileURLToPath(new URL('../native/build/Release/tenon_cpu.node', import.meta.url));

/** Works in an application as in this repository's workspace. */
const buildCommand = 'npm explore @tenon/backend-cpu -- npm run build:native';

/** Loads the addon. Throws backend.load-failed where it was not built, or was built for another platform. */
export function loadBinding(path = addonPath): Binding {
  if (!existsSync(path)) {
    const remedy = `build it, with g++, make and cmake installed: ${buildCommand}`;
    throw failure('backend.load-failed', `the native addon ${path} does not exist; ${remedy}`);
  }
  try {
    return createRequire(import.meta.url)(path) as Binding;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw failure('backend.load-failed', `the native addon ${path} cannot be loaded: ${reason}`, error);
  }
}
