/**
 * No private doors: a backend imports nothing of core but the contract and the SDK's headers; core knows no device by name, a backend no
 * model. Production sources only; a backend's tests may use the conformance kit.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const repository = fileURLToPath(new URL('..', import.meta.url));

/** Files of the working tree, ignored ones left out. */
function listFiles(...pathspecs: string[]): string[] {
  const args = ['ls-files', '--cached', '--others', '--exclude-standard', '--', ...pathspecs];
  const listed = execFileSync('git', args, { cwd: repository, encoding: 'utf8' });
  return listed
    .trim()
    .split('\n')
    .filter((path) => existsSync(join(repository, path)));
}

const readJson = (path: string) => JSON.parse(readFileSync(join(repository, path), 'utf8'));

const packageFolders = listFiles(':(glob)packages/*/package.json', ':(glob)plugins-template/**/package.json')
  .filter((path) => readJson(path).name !== undefined)
  .map((path) => dirname(path));
const isBackend = (folder: string) => readJson(`${folder}/package.json`).tenon?.backend !== undefined;
const backendFolders = packageFolders.filter(isBackend);
const otherPlugins = packageFolders.filter(
  (folder) => folder.startsWith('plugins-template') && !isBackend(folder),
);

interface Source {
  readonly path: string;
  /** Without comments. */
  readonly code: string;
}

/** Of a package, without its tests and the packages inside it. */
function sources(folder: string, files: RegExp): Source[] {
  const inner = packageFolders.filter((other) => other.startsWith(`${folder}/`));
  return listFiles(folder)
    .filter(
      (path) => files.test(path) && !isTest(path) && !inner.some((other) => path.startsWith(`${other}/`)),
    )
    .map((path) => ({ path, code: withoutComments(readFileSync(join(repository, path), 'utf8')) }));
}

const isTest = (path: string) => /(^|\/)(tests?|fuzz)\/|[._](test|bench)\.[a-z]+$/.test(path);
const withoutComments = (text: string) => text.replaceAll(/\/\*[^]*?\*\/|(?<![:'"])\/\/.*/g, '');
const leaves = (folder: string, path: string) => !normalize(path).startsWith(`${folder}/`);

/** What a script imports that it may not: of core all but these entry points, and files outside its package. */
function forbiddenImports({ path, code }: Source, packageFolder: string, allowed: RegExp): string[] {
  const specifiers = /(?:from|import|require|resolve)[\s(]*['"`]([^'"`\n]+)['"`]/g;
  return [...code.matchAll(specifiers)]
    .map(([, name]) => name!)
    .filter((name) =>
      name.startsWith('@tenon/')
        ? !allowed.test(name)
        : name.startsWith('.') && leaves(packageFolder, join(dirname(path), name)),
    );
}

/** What C++ code or a build file reaches for outside its package: of core, only the SDK may be known, as `tenon/…`. */
function forbiddenIncludes({ path, code }: Source, packageFolder: string): string[] {
  const included = [...code.matchAll(/#\s*include\s*["<]([^">]+)[">]/g)].map(([, name]) => name!);
  const ofCore = code.matchAll(
    /packages\/core[^\s)]*|@tenon\/core\/(?!native\/(?:include|cmake)|package\.json)[^\s)]+/g,
  );
  return [
    ...included.filter((name) => name.startsWith('.') && leaves(packageFolder, join(dirname(path), name))),
    ...[...ofCore].map(([text]) => text),
  ];
}

const importsOf = (folder: string, allowed: RegExp) =>
  sources(folder, /\.([cm]?[jt]s)$/).flatMap((script) =>
    forbiddenImports(script, folder, allowed).map((name) => `${script.path}: ${name}`),
  );
const contract = /^@tenon\/core\/backend(\/[a-z-]+)?$/;

describe.each(backendFolders)('%s', (folder) => {
  it('imports nothing of core but @tenon/core/backend', () => {
    expect(importsOf(folder, contract)).toEqual([]);
  });

  it("includes nothing of core but the SDK's headers", () => {
    const findings = sources(folder, /\.(h|hpp|cpp|cc|cu|txt|cmake)$/).flatMap((source) =>
      forbiddenIncludes(source, folder).map((name) => `${source.path}: ${name}`),
    );
    expect(findings).toEqual([]);
  });

  it('asks for no package of ours but core', () => {
    const { dependencies, peerDependencies } = readJson(`${folder}/package.json`);
    const ours = Object.keys({ ...dependencies, ...peerDependencies }).filter((name) => name.startsWith('@tenon/')); // prettier-ignore
    expect(ours).toEqual(['@tenon/core']);
  });

  it('knows no model by name', () => {
    const modelNames =
      /\b(llama|mistral|mixtral|qwen\d*|gemma\d*|phi\d*|deepseek|gpt|smollm\d*|bert|falcon)\w*/gi;
    const findings = sources(folder, /\.([cm]?[jt]s|h|hpp|cpp|cc|cu)$/).flatMap(({ path, code }) =>
      [...code.matchAll(modelNames)].map(([word]) => `${path}: ${word}`),
    );
    expect(findings).toEqual([]);
  });
});

it.each(otherPlugins)('%s imports nothing of core but @tenon/core/extensions', (folder) => {
  expect(importsOf(folder, /^@tenon\/core\/extensions$/)).toEqual([]);
});

const names = 'cpu gpu npu tpu xpu hpu cuda rocm hip neuron gaudi spyre metal vulkan opencl nccl rccl cublas nvidia amd intel'; // prettier-ignore
/** With its quotes where it is all of a string. */
const word = `\\b(?:${names.replaceAll(' ', '|')}|avx\\d*|amx|neon|vsx|x86|arm64)\\b`;
const deviceName = new RegExp(`(['"\`])${word}\\1|${word}`, 'gi');
const devicesIn = (code: string) => [...code.matchAll(deviceName)].map(([word]) => word.toLowerCase());

/** Where core may write a device's name, and why. */
const allowedDeviceNames: readonly { path: RegExp; words: RegExp; reason: string }[] = [
  { path: /backend\/contract\.ts$/, words: /^'[cgnt]pu'$/, reason: 'classes of devices, part of the contract' },
  { path: /plugins\/manifest\.ts$/, words: /^('[cgnt]pu'|npu)$/, reason: 'the same, to check a manifest; an example' },
  { path: /plugins\/plugin-packages\.ts$/, words: /./, reason: 'names of the packages that we publish ourselves' },
  { path: /plugins\/choose-device\.ts$/, words: /^'cpu'$/, reason: 'which package to install where there is none' },
  { path: /plugins\/create-backend\.ts$/, words: /^(npu|'cpu')$/, reason: 'an example of a name; a name that is taken' },
  { path: /plugins\/pack-backend\.ts$/, words: /^cpu$/, reason: "npm's field for the processor" },
  { path: /(engine-limits|l1-memory\/leaks)\.ts$/, words: /^'cpu'$/, reason: 'a class, where backends of contract 1.0 say no more' },
  { path: /conformance\/report\.ts$/, words: /^cpu$/, reason: 'the machine of a report' },
  { path: /tenon\/clones\.h$/, words: /^(x86|"avx2")$/, reason: 'the host that runs the backend, by its compiler' },
  { path: /src\/(cli|server)\//, words: /^[cgn]pu$/, reason: "vLLM's option names, and texts for people" },
]; // prettier-ignore

it('core knows no device by name', () => {
  const code = sources('packages/core', /^packages\/core\/(src|bin|native)\/.*\.([cm]?[jt]s|h|cmake)$/);
  const findings = code.flatMap(({ path, code }) =>
    devicesIn(code)
      .filter(
        (word) => !allowedDeviceNames.some(({ path: file, words }) => file.test(path) && words.test(word)),
      )
      .map((word) => `${path}: ${word}`),
  );
  expect(findings).toEqual([]);
});

it('looks at all that is there', () => {
  expect(backendFolders).toEqual(expect.arrayContaining(['packages/backend-cpu']));
  for (const folder of [...backendFolders, ...otherPlugins, 'packages/core'])
    expect(sources(folder, /\.[jt]s$/).length, folder).toBeGreaterThan(0);
});

it('sees what is forbidden', () => {
  const script = (code: string) =>
    forbiddenImports({ path: 'packages/backend-x/src/a.ts', code }, 'packages/backend-x', contract);
  expect(script("import { LLM } from '@tenon/core';")).toEqual(['@tenon/core']);
  expect(script("await import('@tenon/core/conformance')")).toEqual(['@tenon/core/conformance']);
  expect(script("export * from '../../core/src/errors.js';")).toEqual(['../../core/src/errors.js']);
  expect(script("require('@tenon/backend-cpu')")).toEqual(['@tenon/backend-cpu']);
  expect(script("import type { Plan } from '@tenon/core/backend'; import './b.js'; new URL('../package.json', x)")).toEqual([]); // prettier-ignore
  const native = (code: string) =>
    forbiddenIncludes({ path: 'packages/backend-x/native/src/a.cpp', code }, 'packages/backend-x');
  expect(native('#include "../../../core/native/x.h"')).toEqual(['../../../core/native/x.h']);
  expect(native('include_directories(../../packages/core/src)')).toEqual(['packages/core/src']);
  expect(native('#include "tenon/plan.h"\n#include "../kernels/a.h"\n#include <vector>')).toEqual([]);
  expect(withoutComments("a // cuda\n/* cuda */ 'https://b'")).toBe("a \n 'https://b'");
  expect(devicesIn("if (id === 'cpu' || isCuda || cuda) x = `an NPU`;")).toEqual(["'cpu'", 'cuda', 'npu']);
});
