/** Model files that somebody changes while the engine loads them: it does not start, and says which file it was. */
import { appendFileSync, cpSync, mkdtempSync, renameSync, rmSync, truncateSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, expect, it } from 'vitest';

import type { BackendModule } from '../src/backend/index.js';
import { createNullBackend } from '../src/conformance/null-backend.js';
import { createEngine } from '../src/container.js';

const stories = join(import.meta.dirname, '../../model-stories/model');
const folder = mkdtempSync(join(tmpdir(), 'tenon-changed-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A backend for which loading takes the time that `meanwhile` needs; `closed` counts its executables that were freed. */
function loadingBackend(meanwhile: () => void, closed: string[]): BackendModule {
  const { api, create } = createNullBackend();
  return {
    api,
    create: (host) => {
      const backend = create(host);
      return {
        info: backend.info,
        devices: () => backend.devices(),
        open: async (...args) => {
          const group = await backend.open(...args);
          const { constraints } = group;
          return {
            constraints,
            kvBlockBytes: (...size) => group.kvBlockBytes(...size),
            negotiate: (request) => group.negotiate(request),
            load: async (...loading) => {
              const executable = await group.load(...loading);
              meanwhile();
              return executable;
            },
            close: async () => void closed.push('group'),
          };
        },
      };
    },
  };
}

const changes: [string, (file: string) => void][] = [
  ['is written to', (file) => appendFileSync(file, 'x')],
  ['is truncated', (file) => truncateSync(file, 1000)],
  ['gets another time', (file) => utimesSync(file, 1, 1)],
  ['goes', (file) => rmSync(file)],
  ['is replaced', (file) => {
    cpSync(join(stories, 'model.safetensors'), `${file}.new`);
    appendFileSync(`${file}.new`, 'x');
    renameSync(`${file}.new`, file);
  }],
]; // prettier-ignore

it.each(changes)('a file that %s', async (name, change) => {
  const path = join(folder, name);
  cpSync(stories, path, { recursive: true });
  const file = join(path, 'model.safetensors');
  const closed: string[] = [];
  const backend = loadingBackend(() => change(file), closed);
  await expect(createEngine(path, {}, { backend })).rejects.toMatchObject({
    code: 'config.weights-invalid',
    message: expect.stringContaining(`${file} changed after it was opened`) as string,
  });
  expect(closed).toEqual(['group']);
});
