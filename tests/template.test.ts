/**
 * The template: right answers on every device that its simulator plays, and a backend made from it that builds and passes its own
 * tests in a folder with nothing but the packages it names.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LLM, type EngineOptions } from '@tenon/core';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { firstWrongToken, ggufGoldens, goldens, nearTie, type Golden } from './goldens.js';
import { run } from './serve-process.js';

const repository = fileURLToPath(new URL('..', import.meta.url));
const template = join(repository, 'plugins-template');

const pretend = (mode: string) => (process.env['TENON_SIM_MODE'] = mode);
afterEach(() => {
  delete process.env['TENON_SIM_MODE'];
});

const load = ({ path, hfOverrides }: Golden, options: EngineOptions = {}) =>
  LLM.load(path, { device: 'template', plugins: [template], skipTokenizerInit: true, dtype: 'float32', maxModelLen: 192, hfOverrides, ...options }); // prettier-ignore

async function expectGolden(golden: Golden, options: EngineOptions = {}): Promise<void> {
  await using llm = await load(golden, options);
  const prompts = golden.cases.map((one) => ({ tokenIds: [...one.prompt] }));
  const outputs = await llm.generate(prompts, { temperature: 0, maxTokens: 24, ignoreEos: true });
  for (const [i, one] of golden.cases.entries()) {
    const { tokenIds } = outputs[i]!.outputs[0]!;
    expect(tokenIds).toHaveLength(24);
    expect(firstWrongToken(one, tokenIds, nearTie.float32), `case ${i}`).toBeUndefined();
  }
}

describe('the simulated device', () => {
  it.each(goldens.map((golden) => [golden.name, golden] as const))(
    'gives the golden greedy tokens of %s',
    (_, golden) => expectGolden(golden),
  );

  it.each(['gaudi', 'ascend', 'spyre'])('gives those of a llama scheduled as %s wants it', async (mode) => {
    pretend(mode);
    await expectGolden(goldens[0]!);
  });

  it('multiplies the integers of a Q8_0 file where it can do nothing else', async () => {
    pretend('int8');
    const golden = ggufGoldens.find(({ name }) => name.endsWith('Q8_0'))!;
    await expectGolden(golden, { hfOverrides: {} });
    await expect(load(goldens[0]!)).rejects.toThrow(/int8:g32 weights alone; take a checkpoint in Q8_0/);
  });
});

describe('a backend made from the template', () => {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'tenon-template-')));
  const plugin = join(folder, 'my-npu');
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const npm = (...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync('npm', args, { cwd: plugin, encoding: 'utf8' });
    expect(status, `${stdout}\n${stderr}`).toBe(0);
    return stdout;
  };

  it('is written by npm create, which says what comes next', () => {
    const create = join(repository, 'node_modules/.bin/create-tenon-backend');
    const printed = execFileSync(create, ['my-npu'], { cwd: folder, encoding: 'utf8' });
    expect(printed).toMatch(/wrote my-npu: package tenon-backend-my-npu[^]*npm run build[^]*npm test/);
    symlinkSync(join(repository, 'node_modules'), join(plugin, 'node_modules'));
  });

  it('builds, and passes its own tests', () => {
    npm('run', 'build');
    expect(readdirSync(join(plugin, 'native/build/Release'))).toEqual(['tenon_backend_my_npu.node']);
    expect(npm('test')).toMatch(/^# fail 0$/m);
  });

  it('serves beside the template it was made from', async () => {
    const args = ['--plugin', plugin, template];
    const { stdout } = await run(['devices', ...args]);
    for (const device of ['my-npu:0', 'my-npu:1', 'template:0']) expect(stdout).toContain(device);
    const answer = await run(['complete', '-q', 'Once upon a time', '--max-tokens', '8', '--temperature', '0', '--device', 'my-npu', ...args]); // prettier-ignore
    expect(answer.stdout, answer.stderr).toMatch(/^, there was/);
  });
});

it('has no more lines than one reads in an hour', () => {
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '--', 'plugins-template'], { cwd: repository, encoding: 'utf8' }); // prettier-ignore
  const code = listed.trim().split('\n').filter((path) => !/examples\/|README|\.gitignore|\.json$/.test(path)); // prettier-ignore
  const lines = code.flatMap((path) => readFileSync(join(repository, path), 'utf8').split('\n'));
  expect(lines.filter((line) => line.trim() !== '').length).toBeLessThanOrEqual(1500);
});
