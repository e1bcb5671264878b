/**
 * Backends that were packed when the contract was at an older minor version (`fixtures/compat/<major>.<minor>/*.tgz`) run on today's core,
 * and beside today's backends. How a fixture is made: docs/publishing.md.
 */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backendApi } from '../packages/core/src/plugins/backend-api.js';
import { serve } from './serve-process.js';

const repository = fileURLToPath(new URL('..', import.meta.url));
const fixtures = join(repository, 'tests/fixtures/compat');
const model = join(repository, 'packages/model-stories/model');
const folder = realpathSync(mkdtempSync(join(tmpdir(), 'tenon-compat-')));
afterAll(() => rmSync(folder, { recursive: true }));

const olderVersions = Array.from({ length: backendApi.minor }, (_, minor) => `${backendApi.major}.${minor}`);

interface OldBackend {
  readonly id: string;
  readonly folder: string;
}

/** An application with the packages of that version, and today's core. */
function makeApp(version: string): OldBackend {
  const app = join(folder, version);
  mkdirSync(join(app, 'node_modules/@tenon'), { recursive: true });
  symlinkSync(join(repository, 'packages/core'), join(app, 'node_modules/@tenon/core'));
  const backends = readdirSync(join(fixtures, version)).flatMap((file) => {
    const tarball = join(fixtures, version, file);
    const { name, tenon } = JSON.parse(execFileSync('tar', ['xzOf', tarball, 'package/package.json'], { encoding: 'utf8' })); // prettier-ignore
    const target = join(app, 'node_modules', name);
    mkdirSync(target, { recursive: true });
    execFileSync('tar', ['xzf', tarball, '--strip-components=1', '-C', target]);
    return tenon?.backend === undefined ? [] : [{ id: tenon.backend.id, folder: target }];
  });
  expect(backends).toHaveLength(1);
  return backends[0]!;
}

it.each(olderVersions)('keeps a backend of contract %s', (version) => {
  expect(existsSync(join(fixtures, version)), `tests/fixtures/compat/${version} is missing: docs/publishing.md says how to make it`).toBe(true); // prettier-ignore
});

describe.each(olderVersions)('a backend of contract %s', (version) => {
  let old: OldBackend;
  beforeAll(() => {
    old = makeApp(version);
  });

  it("answers over HTTP as today's does", async () => {
    const complete = async (...args: readonly string[]) => {
      await using server = await serve([model, '--dtype', 'float32', ...args]);
      const response = await fetch(`${server.url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ prompt: 'Once upon a time', max_tokens: 64, temperature: 0, logprobs: 1 }),
      });
      const { choices } = (await response.json()) as { choices: { text: string }[] };
      return { text: choices[0]!.text, maps: readFileSync(`/proc/${server.child.pid}/maps`, 'utf8') };
    };
    const answer = await complete('--device', old.id, '--plugin', old.folder);
    expect(answer.maps).toContain(folder);
    expect(answer.text.length).toBeGreaterThan(100);
    expect(answer.text).toBe((await complete('--device', 'cpu')).text);
  });

  it("computes beside today's in one process, on one thread and on two", () => {
    const script = join(fixtures, 'side-by-side.mjs');
    const args = [script, old.folder, join(repository, 'packages/backend-cpu'), model, folder];
    const said = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
    expect(said.api.old.minor).toBeLessThan(said.api.today.minor);
    expect(said.addons).toHaveLength(2);
    const row = (token: number) => [0, 1, 2, 3].map((i) => 10 * token + i);
    const tokens = [0, 1, 2, 3, 4, 5, 6, 7];
    expect(said.rows.old).toEqual(tokens.map(row));
    expect(said.rows.today).toEqual(tokens.flatMap((token) => [row(token), row(token)]));
    expect(said.alone.old).toEqual(said.alone.today);
    expect(said.together).toEqual(said.alone);
  });
});
