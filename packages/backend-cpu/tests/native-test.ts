import { fileURLToPath } from 'node:url';

/** Path of a native test program, which the build makes beside the addon. */
export function nativeTest(name: string): string {
  return fileURLToPath(new URL(`../native/build/tests/${name}`, import.meta.url));
}
