/** Machines that are not there: a driver library made for the purpose, which the backend opens in place of NVIDIA's. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

/** Builds the libraries into `folder`; the environment of who is to find them. */
export function makeFakeDriver(folder: string): Record<string, string> {
  mkdirSync(folder, { recursive: true });
  const library = join(folder, 'libcuda.so.1');
  execFileSync('g++', ['-shared', '-fPIC', '-O0', path('fixtures/fake-driver.cpp'), '-o', library]);
  copyFileSync(library, join(folder, 'libnvidia-ml.so.1'));
  return { LD_LIBRARY_PATH: folder };
}

/** Builds the program that lists GPUs, with the C++ compiler alone. */
export function makeLister(folder: string): string {
  const program = join(folder, 'list-gpus');
  const include = ['../native/src/runtime', '../../core/native/include'].map((name) => `-I${path(name)}`);
  const sources = ['fixtures/list-gpus.cpp', '../native/src/runtime/gpus.cpp'].map(path);
  execFileSync('g++', ['-std=c++20', '-O0', '-Wall', '-Wextra', '-Werror', '-Wno-missing-field-initializers', ...include, ...sources, '-ldl', '-o', program]); // prettier-ignore
  return program;
}
