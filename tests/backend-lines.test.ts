import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

it('a backend is 1500 lines at most, and changes none of core', () => {
  const script = fileURLToPath(new URL('../scripts/backend-lines.mjs', import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8' });
  expect(stdout, stderr).toMatch(/ \d+ {2}lines of the template, of 1500 at most/);
  expect(stdout).toMatch(/\d+ files in packages\/backend-my-npu; elsewhere: 0$/m);
  expect(status).toBe(0);
});
