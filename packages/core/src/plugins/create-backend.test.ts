import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { TenonError } from '../errors.js';
import { copyTemplate, createBackend } from './create-backend.js';
import { readManifest } from './manifest.js';

const template = fileURLToPath(new URL('../../../../plugins-template', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'tenon-create-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const textsIn = (folder: string): string =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
    .join('\n');

function thrownBy(fn: () => void): TenonError {
  try {
    fn();
  } catch (error) {
    return error as TenonError;
  }
  throw new Error('nothing was thrown');
}

describe('a new backend', () => {
  it('has the names of its own everywhere, and a manifest that core accepts', () => {
    const folder = join(scratch, 'my-npu');
    createBackend('my-npu', folder, template);
    const texts = textsIn(folder);
    expect(texts).toContain('tenon-backend-my-npu');
    expect(texts).toContain('namespace tenon_backend_my_npu {');
    expect(texts).not.toMatch(/tenon[-_]backend[-_]template/);
    expect(texts).not.toMatch(/["'`]template["'`:]|--(device|backend) template/);
    expect(readManifest(folder)).toMatchObject({
      manifest: { id: 'my-npu', packageName: 'tenon-backend-my-npu' },
    });
    expect(readFileSync(join(folder, 'index.js'), 'utf8')).toMatch(
      /id: 'my-npu'[^]*addon: 'tenon_backend_my_npu'/,
    );
  });

  it('comes without what is built or belongs to this repository', () => {
    const folder = join(scratch, 'clean');
    createBackend('clean', folder, template);
    expect(readdirSync(folder).toSorted()).toEqual([
      '.gitignore', 'README.md', 'index.js', 'native', 'package.json', 'tests',
    ]); // prettier-ignore
    expect(existsSync(join(folder, 'native/build'))).toBe(false);
  });

  it('is the same from the copy that core is published with', () => {
    const packed = join(scratch, 'packed');
    copyTemplate(template, packed);
    execFileSync('mv', [join(packed, '.gitignore'), join(packed, 'gitignore')]);
    createBackend('one', join(scratch, 'from-packed'), packed);
    createBackend('one', join(scratch, 'from-here'), template);
    expect(textsIn(join(scratch, 'from-packed'))).toBe(textsIn(join(scratch, 'from-here')));
    expect(existsSync(join(scratch, 'from-packed/.gitignore'))).toBe(true);
  });

  it.each(['My-npu', 'my_npu', '-npu', 'npu-', 'a--b', '', '../npu', 'n'.repeat(41)])(
    'cannot be named %j',
    (name) => {
      const error = thrownBy(() => createBackend(name, join(scratch, 'never'), template));
      expect(error).toMatchObject({ code: 'config.invalid-option' });
      expect(error.message).toContain('such as my-npu');
      expect(existsSync(join(scratch, 'never'))).toBe(false);
    },
  );

  it.each(['cpu', 'auto', 'template', 'tenon-backend-x'])("cannot take Tenon's name %s", (name) => {
    expect(thrownBy(() => createBackend(name, join(scratch, 'never'), template)).message).toContain(
      "Tenon's",
    );
  });

  it('does not overwrite anything', () => {
    const folder = join(scratch, 'full');
    mkdirSync(folder);
    writeFileSync(join(folder, 'mine.txt'), 'mine');
    const error = thrownBy(() => createBackend('my-npu', folder, template));
    expect(error.message).toBe(`${folder} exists and is not empty; name another folder with --folder`);
    expect(readdirSync(folder)).toEqual(['mine.txt']);
  });
});
