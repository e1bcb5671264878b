/**
 * What backends that are already published rely on, part by part, each with the version that says that it changed. A test compares the
 * parts with the snapshots in tests/contract-snapshots; snapshot-contract.ts writes those.
 */
import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

import ts from 'typescript';

import {
  activations, checkpointDtypes, dtypes, encodePlan, opNames, ops, planHeaderWords, planMagic, planTensorWords, planVersion,
  resultHeader, resultWords, rowMode, stepHeader, stepInputs, stepMagic, stepRegions, stepVersion, symbols, tensorKinds,
  weightSchemes, weightUses, type Plan,
} from '../src/backend/index.js'; // prettier-ignore
import { backendApi } from '../src/plugins/backend-api.js';

export interface ContractPart {
  readonly name: string;
  readonly version: string;
  /** What has to be raised when the content changes. */
  readonly raise: string;
  /** Text, or JSON. */
  readonly content: unknown;
}

const root = join(import.meta.dirname, '..');
const apiVersion = `${backendApi.major}.${backendApi.minor}`;

export const contractParts = (): readonly ContractPart[] => [
  {
    name: 'plan',
    version: `${planVersion}`,
    raise: 'planVersion in src/backend/plan.ts',
    content: planLayout(),
  },
  {
    name: 'step',
    version: `${stepVersion}`,
    raise: 'stepVersion in src/backend/step.ts',
    content: stepLayout(),
  },
  ...opNames.map(opPart),
  { name: 'numbers', version: apiVersion, raise: raiseApi, content: numbers() },
  { name: 'types', version: apiVersion, raise: raiseApi, content: declarations() },
  {
    name: 'sdk',
    version: sdkVersion(),
    raise: 'TENON_SDK_MINOR in native/include/tenon/version.h',
    content: sdkInterfaces(),
  },
];

const raiseApi = 'backendApi.minor in src/plugins/backend-api.ts';

/** The words of a plan that has one of everything. */
function planLayout(): object {
  const plan: Plan = {
    weights: [
      { name: 'table', parts: ['table'], shape: [8, 4], dtype: 'bf16', uses: ['embedding'] },
      { name: 'norm', parts: ['norm'], shape: [4], dtype: 'f32', uses: ['vector'] },
    ],
    tensors: [
      { kind: 'input', dtype: 'i32', dims: ['T'], input: 'tokenIds' },
      { kind: 'weight', dtype: 'bf16', dims: [8, 4], weight: 0 },
      { kind: 'buffer', dtype: 'f32', dims: ['T', 4], offset: 5 * 2 ** 32 + 64 },
      { kind: 'weight', dtype: 'f32', dims: [4], weight: 1 },
      { kind: 'buffer', dtype: 'f32', dims: ['L', 4], offset: 128 },
      { kind: 'state', dtype: 'state', dims: [] },
      { kind: 'output', dtype: 'f32', dims: ['S', 2, 2] },
    ],
    ops: [
      { op: 'embedding', inputs: [0, 1], outputs: [2], attrs: {} },
      { op: 'rms_norm', inputs: [2, 3], outputs: [4], attrs: { size: 4, eps: 1e-5 } },
      { op: 'linear', inputs: [4, 1, -1], outputs: [6], attrs: {} },
    ],
    segments: [
      { firstOp: 0, numOps: 1 },
      { firstOp: 1, numOps: 2, tile: 32 },
    ],
    kvLayers: [{ numKvHeads: 2, headDim: 64, dtype: 'bf16' }],
    limits: { maxTokens: 2048, maxSeqs: 7, maxLogitRows: 9, maxModelLen: 4096, blockSize: 32, numBlocks: 1000, vocabSize: 8 },
    arenaBytes: 6 * 2 ** 32 + 1,
  }; // prettier-ignore
  const words = [...encodePlan(plan)].join(' ');
  return { magic: planMagic, headerWords: planHeaderWords, tensorWords: planTensorWords, words };
}

function stepLayout(): object {
  const regions = Object.entries(stepRegions).map(([name, type]) => `${name}: ${type}`);
  return {
    magic: stepMagic,
    header: stepHeader,
    regions,
    rowMode,
    resultHeader,
    resultWords: resultWords(3, 2),
  };
}

function opPart(name: (typeof opNames)[number]): ContractPart {
  const { version, inputs, outputs, attrs, effects, fused } = ops[name];
  const content = {
    number: opNames.indexOf(name),
    inputs,
    outputs,
    attrs: Object.entries(attrs),
    effects,
    fused,
  };
  return { name: `op-${name}`, version: `${version}`, raise: `the version of ${name} in src/backend/ops.ts`, content }; // prettier-ignore
}

/** Names by the numbers that they have in plans. Later versions add to the end. */
function numbers(): Record<string, readonly string[]> {
  const schemes = Object.entries(weightSchemes).map(([name, info]) => `${name} ${JSON.stringify(info)}`);
  const lists = { dtypes, symbols, tensorKinds, stepInputs, weightUses, activations, checkpointDtypes };
  return { ops: opNames, ...lists, weightSchemes: schemes };
}

const contractFiles = [
  'src/backend/',
  'src/program/reference/sampler.ts',
  'src/program/reference/step-reader.ts',
];

/** What `@tenon/core/backend` and `@tenon/core/backend/host` declare, without comments. */
function declarations(): string {
  const entries = ['index.ts', 'host.ts'].map((file) => join(root, 'src/backend', file));
  const options: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    strict: true,
    skipLibCheck: true,
    types: ['node'],
    declaration: true,
    emitDeclarationOnly: true,
    removeComments: true,
  };
  const texts = new Map<string, string>();
  ts.createProgram(entries, options).emit(undefined, (_file, text, _mark, _onError, sources) => {
    const source = relative(root, sources?.[0]?.fileName ?? '');
    if (contractFiles.some((file) => source.startsWith(file))) texts.set(source, text);
  });
  const sorted = [...texts].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([source, text]) => `// ${source}\n${text}`).join('\n');
}

const readHeader = (name: string) => readFileSync(join(root, 'native/include/tenon', name), 'utf8');

function sdkVersion(): string {
  const version = readHeader('version.h');
  const number = (which: string) => new RegExp(`define TENON_SDK_${which} (\\d+)`).exec(version)?.[1];
  return `${number('MAJOR')}.${number('MINOR')}`;
}

/** Headers that a backend implements or calls by name; the others are what the SDK does with it. */
const interfaceHeaders = ['interfaces.h', 'device.h', 'status.h', 'weights.h'];

/** Their text without comments, one statement or brace a line. */
const sdkInterfaces = (): string =>
  interfaceHeaders.map((name) => `// ${name}\n${withoutComments(readHeader(name))}\n`).join('\n');

const withoutComments = (text: string): string =>
  text
    .replaceAll(/\/\*[^]*?\*\/|\/\/.*/g, '')
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/ ?([;{}]) ?/g, '$1\n')
    .trim();
