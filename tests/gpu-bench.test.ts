/** The parts of bench/gpu that need neither a GPU nor Python: what it asks, and what its checks let pass. */
import { describe, expect, it } from 'vitest';

const load = (file: string) => import(new URL(`../bench/gpu/${file}`, import.meta.url).href);
const { checkAgreement, checkLengths, checkVerdicts } = await load('checks.mjs');
const { isMet, targetOf } = await load('targets.mjs');
const { drawTokens, worksOf } = await load('works.mjs');

interface Asked {
  readonly prompts: readonly (readonly number[])[];
  readonly maxTokens: number | readonly number[];
}

/** Keeps what it is asked, and takes a millisecond for each prompt token and ten for each answered one. */
function recordingClient() {
  const asked: Asked[] = [];
  const ask = async (prompts: Asked['prompts'], maxTokens: Asked['maxTokens']) => {
    asked.push({ prompts, maxTokens });
    const lengths = prompts.map((_, i) => (typeof maxTokens === 'number' ? maxTokens : maxTokens[i]!));
    const tokens = prompts.flat().length + 10 * lengths.reduce((sum, length) => sum + length, 0);
    return { seconds: tokens / 1000, answers: prompts.map((prompt) => ({ prompt, tokens: [] })) };
  };
  return { asked, client: { draw: (label: string) => drawTokens(label, 4096), ask } };
}

const total = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0);

describe('works', () => {
  it('asks for the 512 requests that the figures of vLLM were measured with', async () => {
    const { asked, client } = recordingClient();
    await worksOf({ scale: 1, rounds: 1, throughputRequests: 512 }).throughput.measure(client);
    expect(asked[0]!.prompts).toHaveLength(512);
    expect(asked[0]!.prompts.flat()).toHaveLength(297_650);
    expect(total(asked[0]!.maxTokens as number[])).toBe(291_895);
  });

  it('leaves prompts out of the steady speed of decoding', async () => {
    const { client } = recordingClient();
    const works = worksOf({ scale: 1, rounds: 3, throughputRequests: 512 });
    expect((await works['decode-32'].measure(client)).value).toBeCloseTo(100, 6);
  });

  it('draws the same tokens of the vocabulary for the same label, and others for another', () => {
    const tokens = drawTokens('a', 4096)(1000) as number[];
    expect(drawTokens('a', 4096)(1000)).toEqual(tokens);
    expect(drawTokens('b', 4096)(1000)).not.toEqual(tokens);
    expect(Math.min(...tokens)).toBeGreaterThanOrEqual(10);
    expect(Math.max(...tokens)).toBeLessThan(3096);
    expect(new Set(tokens).size).toBeGreaterThan(700);
  });

  it('shares a prefix only where that is the work', async () => {
    const works = worksOf({ scale: 1, rounds: 1, throughputRequests: 512 });
    for (const [work, heads] of [
      ['prefix-shared', 1],
      ['prefix-none', 256],
    ] as const) {
      // prettier-ignore
      const { asked, client } = recordingClient();
      await works[work].measure(client);
      expect(new Set(asked[0]!.prompts.map((prompt) => String(prompt.slice(0, 2048)))).size).toBe(heads);
      expect(new Set(asked[0]!.prompts.map(String)).size).toBe(256);
    }
  });
});

describe('checks', () => {
  it('counts tokens, and knows the vocabulary', () => {
    const prompts = [[1], [2]];
    expect(checkLengths('x', [[1, 2], [3]], prompts, [2, 1], 10)).toEqual([]);
    expect(
      checkLengths(
        'x',
        [
          [1, 2],
          [3, 4],
        ],
        prompts,
        [2, 1],
        10,
      ),
    ).toHaveLength(1);
    expect(checkLengths('x', [[1, 2]], prompts, 2, 10)).toHaveLength(1);
    expect(checkLengths('x', [[1], [10]], prompts, 1, 10)).toHaveLength(1);
  });

  it('asks most answers to begin alike', () => {
    const engine = (first: readonly number[]) => ({
      works: { w: { answers: first.map((token) => ({ prompt: [], tokens: [token, 5] })) } },
    });
    const tenon = engine([1, 2, 3, 4]);
    expect(checkAgreement({ tenon, vllm: engine([1, 2, 3, 9]) }).problems).toEqual([]);
    expect(checkAgreement({ tenon, vllm: engine([1, 2, 9, 9]) }).problems).toHaveLength(1);
  });

  const noise = Array.from({ length: 100 }, (_, i) => (i < 5 ? 0.05 : 0));
  const wrong = Array.from({ length: 100 }, (_, i) => (i < 30 ? 0.8 : 0));
  const verdict = (behind: readonly number[], controlBehind: readonly number[] = wrong) => ({
    engine: 'tenon', work: 'w', behind, bf16Behind: noise, controlBehind,
  }); // prettier-ignore

  it('lets rounding pass, and nothing that is further behind or behind more often', () => {
    const problemsOf = (behind: readonly number[]) => checkVerdicts([verdict(behind)]).problems;
    expect(problemsOf(noise)).toEqual([]);
    expect(problemsOf([...noise.slice(0, 99), 0.2])).toHaveLength(1);
    expect(problemsOf(noise.map((_, i) => (i < 16 ? 0.01 : 0)))).toHaveLength(1);
  });

  it('fails where a wrong block would pass', () => {
    expect(checkVerdicts([verdict(noise, noise)]).problems).toHaveLength(1);
  });
});

describe('targets', () => {
  it('are multiples of vLLM in the same run, else of its figure from before', () => {
    expect(targetOf('llama-8b', 'throughput', 10_000).figure).toBeCloseTo(11_000);
    expect(targetOf('llama-8b', 'throughput', undefined).figure).toBeCloseTo(12_701.7);
    expect(targetOf('llama-8b', 'decode-1', 100).figure).toBe(260);
    expect(targetOf('qwen3-0.6b', 'start', undefined)).toBeUndefined();
    expect(targetOf(undefined, 'throughput', 10_000)).toBeUndefined();
  });

  it('are met by more tokens per second, and by less of all else', () => {
    expect(isMet('tokens/s', 2, 1)).toBe(true);
    expect(isMet('ms', 2, 1)).toBe(false);
  });
});
