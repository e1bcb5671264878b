import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { nativeTest } from './native-test.js';

it('every kernel agrees with its reference on every instruction set of this machine', () => {
  const output = execFileSync(nativeTest('kernels_test'), { encoding: 'utf8' });
  for (const kernel of ['gemm', 'attention', 'kv_write', 'elementwise', 'vocab'])
    expect(output).toMatch(new RegExp(`^generic +${kernel} +[1-9]\\d* checks, 0 failed`, 'm'));
});
