/** scripts/device-stress.mjs finds nothing in what is right, and a kernel that is wrong in one element at once. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildTemplate, templateFolder } from './built-template.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const golden = `${root}packages/core/tests/goldens/llama`;

function stress(args: readonly string[], env: Record<string, string> = {}) {
  const all = ['scripts/device-stress.mjs', ...args, '--model', golden, '--seed', '5'];
  return spawnSync(process.execPath, all, { cwd: root, env: { ...process.env, ...env }, encoding: 'utf8' });
}

it('agrees with the reference about the CPU', () => {
  const { status, stdout, stderr } = stress(['--device', 'cpu', '--against', 'reference', '--rounds', '2']);
  expect(stderr).toBe('');
  expect(stdout).toMatch(/tokens [1-9]\d\d[^]*all right/);
  expect(status).toBe(0);
});

describe('on the simulated accelerator', () => {
  const template = ['--device', 'template', '--plugin', templateFolder];
  beforeAll(buildTemplate, 300_000);

  it('finds nothing in eight rounds', () => {
    const { status, stdout } = stress([...template, '--rounds', '8']);
    expect(stdout).toMatch(/storms [1-9][^]*all right/);
    expect(status).toBe(0);
  });

  it('finds a wrong kernel, in few requests, and says how to repeat it', () => {
    const fault = { TENON_SIM_FAULT: 'kernel:wrong:linear' };
    const { status, stdout } = stress([...template, '--dtype', 'float32'], fault);
    expect(stdout).toMatch(/^FAILED: seed \d+: request \d+: .* expected /m);
    expect(stdout).toMatch(/^ {2}1 of \d+ requests suffice: /m);
    expect(stdout).toMatch(/--device template .*--dtype float32 --seed \d+ --rounds 1 --only \d+$/m);
    expect(status).toBe(1);
  });

  it('finds a lost device', () => {
    const { status, stdout } = stress([...template, '--rounds', '8'], { TENON_SIM_FAULT: 'step:lost@9' });
    expect(stdout).toMatch(/^FAILED: seed \d+: .*backend\.device-lost/m);
    expect(status).toBe(1);
  });
});
