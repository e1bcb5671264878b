import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { nativeTest } from './native-test.js';

const fixture = (name: string) => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
const run = (name: string, args: readonly string[] = []) =>
  execFileSync(nativeTest(name), args, { encoding: 'utf8' });

it('reads every checkpoint format as the gguf package does, bit for bit', () => {
  expect(run('dequant_test', [fixture('dequant.bin')])).toContain('ok: 13 formats');
});

it('packs weights of any type and size, with any threads, and names what is wrong with a file', () => {
  expect(run('weights_test')).toContain('ok:');
});
