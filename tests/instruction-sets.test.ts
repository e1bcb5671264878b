/** The same goldens on every instruction set that this machine has, chosen by TENON_CPU_ISA as a user would. */
import { readFileSync } from 'node:fs';
import { LLM } from '@tenon/core';
import { afterAll, describe, expect, it } from 'vitest';
import { firstWrongToken, ggufGoldens, goldens, meanDifference, nearTie } from './goldens.js';

const flags = /^flags\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' ') ?? [];
const needs: Record<string, readonly string[]> = {
  generic: [],
  avx2: ['avx2', 'fma', 'f16c'],
  avx512: ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq'],
  'avx512-bf16': ['avx512_bf16', 'avx512_vnni'],
  amx: ['amx_tile', 'amx_bf16'],
};
const names = Object.keys(needs).filter((isa) => needs[isa]!.every((flag) => flags.includes(flag)));
const plain = goldens.filter(({ name }) =>
  ['mistral exact', 'qwen3 exact', 'llama-biases', 'qwen3-large-heads'].includes(name),
);
// between them, every scheme of quantized weights
const quantized = ggufGoldens.filter(({ name }) =>
  ['llama-Q4_0', 'llama-K', 'qwen2-Q8_0', 'qwen2-Q4_1', 'qwen3-Q5_1'].includes(name),
);
const chosen = [...plain, ...quantized];

const before = process.env['TENON_CPU_ISA'];
afterAll(() => {
  if (before === undefined) delete process.env['TENON_CPU_ISA'];
  else process.env['TENON_CPU_ISA'] = before;
});

describe.each(names)('%s', (isa) => {
  it.each(chosen.map((golden) => [golden.name, golden] as const))(
    'answers as %s in f32, bf16 and f16',
    async (_, golden) => {
      process.env['TENON_CPU_ISA'] = isa;
      for (const dtype of ['float32', 'bfloat16', 'float16']) {
        await using llm = await LLM.load(golden.path, { device: 'cpu', dtype, skipTokenizerInit: true });
        expect(llm.engine.info.backend.runtime['isa']).toBe(isa);
        const params = { temperature: 0, maxTokens: 24, ignoreEos: true, promptLogprobs: 0 };
        const outputs = await llm.generate(golden.cases.map((one) => ({ tokenIds: one.prompt })), params); // prettier-ignore
        for (const [i, one] of golden.cases.entries()) {
          const found = outputs[i]!.promptLogprobs!.slice(1).map((entry) => entry![0]!.logprob);
          expect(meanDifference(found, one.prompt_logprobs)).toBeLessThanOrEqual(
            dtype === 'float32' ? 1e-3 : 0.04,
          );
          const margin = dtype === 'float32' ? nearTie.float32 : nearTie.bfloat16;
          expect(
            firstWrongToken(one, outputs[i]!.outputs[0]!.tokenIds, margin),
            `${dtype}, case ${i}`,
          ).toBeUndefined();
        }
      }
    },
  );
});
