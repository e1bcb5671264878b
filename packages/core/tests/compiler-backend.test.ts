/** The compiler-style example backend (plugins-template/examples/compiler-backend): models through generated code. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { BackendModule, Counters, Executable } from '../src/backend/index.js';
import type { EngineOptions } from '../src/config/engine-options.js';
import { LLM } from '../src/llm.js';

const goldens = join(import.meta.dirname, 'goldens');
const example = join(import.meta.dirname, '../../../plugins-template/examples/compiler-backend/index.js');
const { default: module } = (await import(example)) as { default: BackendModule };

interface GoldenCase {
  readonly prompt: number[];
  readonly prompt_logprobs: number[];
  readonly greedy: number[];
  readonly margins: number[];
}
const casesOf = (name: string) =>
  (JSON.parse(readFileSync(join(goldens, name, 'exact.json'), 'utf8')) as { cases: GoldenCase[] }).cases;

const load = (name: string, backend: BackendModule, options: EngineOptions = {}) =>
  LLM.load(join(goldens, name), { skipTokenizerInit: true, maxModelLen: 128, ...options }, { backend });

/** Tokens up to the first near-tie, where another one would be right too. */
function certain({ greedy, margins }: GoldenCase): number[] {
  const tie = margins.findIndex((margin) => margin <= 2e-3);
  return tie === -1 ? greedy : greedy.slice(0, tie);
}

/** The example with its executables within reach. */
function withExecutables(): { backend: BackendModule; executables: Executable[] } {
  const executables: Executable[] = [];
  const backend: BackendModule = {
    api: module.api,
    create(host) {
      const inner = module.create(host);
      return {
        info: inner.info,
        devices: () => inner.devices(),
        open: async (...args) => {
          const group = await inner.open(...args);
          const loadPlan = group.load.bind(group);
          group.load = async (...loading) => {
            const executable = await loadPlan(...loading);
            executables.push(executable);
            return executable;
          };
          return group;
        },
      };
    },
  };
  return { backend, executables };
}

describe('the compiler-style example', () => {
  it.each(['llama', 'llama-rope3', 'mistral', 'qwen2', 'qwen3'])(
    '%s: answers as Hugging Face does, all prompts at once',
    async (name) => {
      await using llm = await load(name, module);
      const cases = casesOf(name);
      const outputs = await llm.generate(
        cases.map(({ prompt }) => prompt),
        cases.map(({ greedy }) => ({
          temperature: 0,
          maxTokens: greedy.length,
          ignoreEos: true,
          promptLogprobs: 0,
        })),
      );
      outputs.forEach((output, i) => {
        const tokens = certain(cases[i]!);
        expect(tokens.length).toBeGreaterThan(0);
        expect(output.outputs[0]!.tokenIds.slice(0, tokens.length)).toEqual(tokens);
      });
    },
  );

  it('compiles every bucket while warming up, and nothing afterwards', async () => {
    const { backend, executables } = withExecutables();
    await using llm = await load('llama', backend);
    const prompts = [1, 9, 30, 70].map((length) => Array.from({ length }, (_, i) => (i * 13 + length) % 300));
    await llm.generate(prompts, { temperature: 0, maxTokens: 5, ignoreEos: true });
    const counters: Counters = executables[0]!.counters!();
    expect(counters.steps).toBeGreaterThan(10);
    expect(counters.compiles).toBe(0);
  });

  it('says of each op what it makes of it, and why not', async () => {
    const plan = await LLM.explain(join(goldens, 'llama'), { skipTokenizerInit: true }, { backend: module });
    expect(plan).toContain('generated attention');
    await expect(load('llama-dynamic', module)).rejects.toThrow(
      'frequencies that depend on the length are not generated',
    );
    await expect(load('llama', module, { dtype: 'bfloat16' })).rejects.toThrow(
      'device codegen:0 cannot compute in bf16; it has f32',
    );
  });
});
