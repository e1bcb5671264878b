/** What finding plugins costs, with room for a busy machine; bench/install-cost.mjs measures it against the limits themselves. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
// @ts-expect-error: plain JavaScript, a program too
import { addDependencies, discoveryMs, doctorMs, limits } from '../bench/install-cost.mjs';

const repository = fileURLToPath(new URL('..', import.meta.url));
const app = mkdtempSync(join(tmpdir(), 'tenon-install-cost-'));
const busy = 3;

beforeAll(() => {
  mkdirSync(join(app, 'node_modules/@tenon'), { recursive: true });
  const dependencies: Record<string, string> = {};
  for (const name of ['core', 'backend-cpu']) {
    symlinkSync(join(repository, 'packages', name), join(app, 'node_modules/@tenon', name));
    dependencies[`@tenon/${name}`] = '*';
  }
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'app', private: true, dependencies }));
  addDependencies(app);
});
afterAll(() => rmSync(app, { recursive: true }));

it('finds the backends among 300 dependencies at once', () => {
  const { ms, found } = discoveryMs(app);
  expect(found).toBe(10 + 2); // of the dependencies, and ours
  expect(ms).toBeLessThan(busy * limits.discoveryMs);
});

it('answers as a doctor before one looks at the clock', () => {
  expect(doctorMs(app, join(repository, 'packages/core/bin/tenon.js'))).toBeLessThan(limits.doctorMs);
});
