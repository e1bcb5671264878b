/** `tenon conform` as a person runs it: on the reference, which passes, and on the null backend, which computes nothing. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { tenon } from './tenon-process.js';

const folder = mkdtempSync(join(tmpdir(), 'tenon-conform-test-'));
afterAll(() => rmSync(folder, { recursive: true }));
const plugin = fileURLToPath(new URL('fixtures/null-backend', import.meta.url));

it('passes the reference backend, level by level', async () => {
  const output = join(folder, 'conformance.json');
  const args = ['conform', '--backend', 'reference', '--level', '1', '--output', output];
  const { status, stdout, stderr } = await tenon(args).ended;
  expect(stderr).toBe('');
  expect(stdout).toMatch(/^1 memory +38 +0 +0 +0 /m);
  expect(stdout).toContain('all cases that were run passed; level reached: 1');
  expect(status).toBe(0);
  const report = JSON.parse(readFileSync(output, 'utf8'));
  expect(report).toMatchObject({
    schema: 1,
    level: 1,
    complete: true,
    seed: 1,
    backend: { id: 'reference' },
  });
});

it('names the worst element and the command that repeats the case, and ends with 1', async () => {
  const name = 'L3/llama/f32/reference';
  const args = ['conform', '--plugin', plugin, '--backend', 'null', '--case', name, '--seed', '3'];
  const { status, stdout } = await tenon(args).ended;
  expect(status).toBe(1);
  expect(stdout).toMatch(/logits\[0, \d+\] is .*; expected .* ± .* \(\d+ of 96 elements are wrong\)/);
  expect(stdout).toContain(`tenon conform --backend null --plugin ${plugin} --case '${name}' --seed 3`);
});

it('goes on behind a case in which the backend ends the process', async () => {
  const args = ['conform', '--plugin', plugin, '--backend', 'null', '--case', 'L2/attention/f32/length=*'];
  const { status, stdout } = await tenon(args, { env: { NULL_FAULT: 'crash' } }).ended;
  expect(status).toBe(1);
  expect(stdout).toMatch(/^2 ops +0 +2 +0 +0 /m);
  expect(stdout.match(/^ {2}the backend ended the process with exit code/gm)).toHaveLength(2);
});

it('runs golden checkpoints of a folder besides its own', async () => {
  const goldens = fileURLToPath(new URL('../goldens', import.meta.url));
  const args = ['conform', '--goldens', goldens, '--case', 'L3/golden-*'];
  const { status, stdout } = await tenon([...args, '--backend', 'reference', '--sample', '2']).ended;
  expect(stdout).toMatch(/^3 programs +2 +0 +0 +0 /m);
  expect(status).toBe(0);
  const list = await tenon([...args, '--list']).ended;
  expect(list.stdout).toContain('L3/golden-qwen3-large-heads/bf16/transformers');
  expect(list.stdout.match(/golden-qwen3\/f32/g)).toHaveLength(1);
  const wrong = await tenon(['conform', '--goldens', plugin]).ended;
  expect(wrong.stderr).toContain('expected a folder that holds a folder for each checkpoint');
});

it('lists cases, and says what it does not understand', async () => {
  const list = await tenon(['conform', '--list', '--op', 'kv_write']).ended;
  expect(list.stdout.trim().split('\n')).toContain('L1/kv_write/only-named-slots');
  const sample = await tenon(['conform', '--list', '--level', '2-2', '--sample', '2', '--seed', '5']).ended;
  expect(sample.stdout.match(/^L2\/linear\/.*$/gm)).toHaveLength(2);
  const wrong = await tenon(['conform', '--level', '7']).ended;
  expect(wrong.status).toBe(2);
  expect(wrong.stderr).toContain("--level is '7'; expected 0 to 5");
  const nobody = await tenon(['conform', '--plugin', plugin, '--backend', 'nobody']).ended;
  expect(nobody.stderr).toContain("no backend 'nobody' can be loaded; found: ");
});
