/** A registry on loopback that has this repository's packages in the versions of the next release, and the third-party ones they need. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { publishInstalled, startRegistry, type LoopbackRegistry } from './loopback-registry.js';
import { copyForRelease } from './release-copy.js';

export interface ReleasedRegistry extends LoopbackRegistry {
  /** The copy of this repository that was released. */
  readonly release: string;
  /** Whether the CUDA backend is among what was released: its native part was built. */
  readonly hasCuda: boolean;
  /** What `scripts/release.mjs` said. */
  readonly released: readonly string[];
  /** Runs a command in a folder to its end; what it printed. */
  run(folder: string, command: string, ...args: readonly string[]): string;
}

/** What a backend is built with. */
export const buildTools = ['cmake-js', 'node-addon-api', 'node-api-headers'];

/** `others`: packages to have besides, as the CPU backend would resolve them. */
export async function startReleasedRegistry(
  folder: string,
  others: readonly string[] = [],
): Promise<ReleasedRegistry> {
  const release = join(folder, 'release');
  copyForRelease(release);
  const hasCuda = releaseCudaAsBuilt(join(release, 'packages/backend-cuda'));
  const registry = await startRegistry(join(folder, 'registry'));
  const { dependencies } = JSON.parse(readFileSync(join(release, 'packages/core/package.json'), 'utf8'));
  await publishInstalled(registry, folder, {
    'packages/core': Object.keys(dependencies),
    'packages/backend-cpu': others,
  });
  const run: ReleasedRegistry['run'] = (cwd, command, ...args) =>
    runCommand(cwd, registry.environment, command, args);
  const released = run(release, process.execPath, 'scripts/release.mjs').trim().split('\n');
  return { ...registry, release, hasCuda, released, run };
}

/**
 * A release has the CUDA backend with code for all GPUs, or fails. A checkout has it with code for few, or not built: here the former
 * will do, and the latter stays behind. Whether it is released.
 */
function releaseCudaAsBuilt(folder: string): boolean {
  const isBuilt = existsSync(join(folder, 'native/build/Release/tenon_cuda.node'));
  const path = join(folder, 'package.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8'));
  const { 'check:pack': _, ...scripts } = manifest.scripts;
  writeFileSync(path, JSON.stringify({ ...manifest, scripts, private: !isBuilt }));
  return isBuilt;
}

function runCommand(
  cwd: string,
  env: LoopbackRegistry['environment'],
  command: string,
  args: readonly string[],
): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, env, encoding: 'utf8' });
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${stdout}\n${stderr}`);
  return stdout;
}
