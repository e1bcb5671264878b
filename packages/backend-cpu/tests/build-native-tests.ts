/** Vitest's global setup: builds the native test programs in the folder that `npm run build` configured. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export function setup(): void {
  const folder = fileURLToPath(new URL('../native/build', import.meta.url));
  execFileSync('cmake', ['--build', folder, '--target', 'native_tests', '--parallel', '2'], {
    stdio: 'inherit',
  });
}
