/** Each sampling parameter does to real answers what it says, and samples are distributed as the probabilities are. */
import { fileURLToPath } from 'node:url';
import { LLM, type SamplingParams } from '@tenon/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goldens } from './goldens.js';

const golden = goldens.find(({ name }) => name.startsWith('llama'))!;
const prompt = golden.cases.map((one) => one.prompt).find(({ length }) => length >= 30)!;
const stories = fileURLToPath(new URL('../packages/model-stories/model', import.meta.url));

async function only(llm: LLM, input: string | readonly number[], params: Partial<SamplingParams>) {
  const [output] = await llm.generate([input], params);
  return output!.outputs;
}

/** [vocabulary] log-probabilities, by token id, from a whole top list. */
function byToken(top: readonly { readonly tokenId: number; readonly logprob: number }[]): number[] {
  const logprobs: number[] = [];
  for (const { tokenId, logprob } of top) logprobs[tokenId] = logprob;
  return logprobs;
}

describe('on a checkpoint with a vocabulary of 331 tokens', () => {
  let llm: LLM;
  beforeAll(async () => {
    llm = await LLM.load(golden.path, {
      device: 'cpu',
      dtype: 'float32',
      skipTokenizerInit: true,
      maxLogprobs: -1,
      hfOverrides: golden.hfOverrides,
    });
  });
  afterAll(() => llm[Symbol.asyncDispose]());

  /** Tokens of one request with their whole distributions, greedy. */
  async function greedily(params: Partial<SamplingParams>) {
    const common = { temperature: 0, maxTokens: 40, ignoreEos: true, logprobs: -1 };
    const [output] = await only(llm, prompt, { ...common, ...params });
    return { tokenIds: output!.tokenIds, logprobs: output!.logprobs!.map(byToken) };
  }

  it('takes frequency_penalty times count and presence_penalty from the logits of output tokens', async () => {
    const frequencyPenalty = 0.4;
    const presencePenalty = 0.3;
    const { tokenIds, logprobs } = await greedily({ frequencyPenalty, presencePenalty });
    const counts = new Map<number, number>();
    for (const [i, token] of tokenIds.entries()) {
      const penalized = logprobs[i]!.map((logprob, id) => {
        const count = counts.get(id) ?? 0;
        return logprob - frequencyPenalty * count - (count > 0 ? presencePenalty : 0);
      });
      expect(penalized[token], `token ${i}`).toBeGreaterThan(Math.max(...penalized) - 1e-4);
      counts.set(token, (counts.get(token) ?? 0) + 1);
    }
    expect(tokenIds).not.toEqual((await greedily({})).tokenIds);
  });

  it('divides the logits of prompt and output tokens by repetition_penalty', async () => {
    const { tokenIds: varied } = await greedily({ repetitionPenalty: 1e6 });
    expect(new Set([...prompt, ...varied]).size).toBe(new Set(prompt).size + varied.length);
    const { tokenIds: repeated } = await greedily({ repetitionPenalty: 1e-6 });
    expect(repeated.filter((token) => !prompt.includes(token))).toEqual([]);
  });

  it('adds logit_bias, keeps to allowed_token_ids, and holds stop tokens back until min_tokens', async () => {
    const plain = (await greedily({})).tokenIds;
    const banned = await greedily({ logitBias: { [plain[0]!]: -100 } });
    expect(banned.tokenIds).not.toContain(plain[0]);
    const allowedTokenIds = [3, 5, 8];
    const { tokenIds, logprobs } = await greedily({ allowedTokenIds });
    for (const [i, token] of tokenIds.entries()) {
      const best = allowedTokenIds.toSorted((a, b) => logprobs[i]![b]! - logprobs[i]![a]!)[0];
      expect(token, `token ${i}`).toBe(best);
    }
    const stopTokenIds = [plain[2]!];
    expect((await greedily({ stopTokenIds })).tokenIds).toEqual(plain.slice(0, plain.indexOf(plain[2]!) + 1));
    const held = (await greedily({ stopTokenIds, minTokens: 20 })).tokenIds;
    expect(held.slice(0, 20)).not.toContain(plain[2]);
  });

  const settings: Readonly<Record<string, Partial<SamplingParams>>> = {
    'temperature 1': { temperature: 1 },
    'temperature 0.6': { temperature: 0.6 },
    'temperature 1.7': { temperature: 1.7 },
    'top_k 7': { temperature: 1.3, topK: 7 },
    'top_p 0.5': { temperature: 1.3, topP: 0.5 },
    'min_p 0.15': { temperature: 1.3, minP: 0.15 },
    'min_p, top_k and top_p': { temperature: 1.5, minP: 0.02, topK: 30, topP: 0.8 },
  };
  it.each(Object.entries(settings))('samples as often as the probabilities say: %s', async (_, params) => {
    const first = (await greedily({ maxTokens: 1 })).logprobs[0]!;
    const expected = keptProbabilities(first, params);
    const n = 6000;
    const outputs = await only(llm, prompt, { ...params, n, seed: 11, maxTokens: 1, ignoreEos: true });
    const counts = expected.map(() => 0);
    for (const { tokenIds } of outputs) counts[tokenIds[0]!]!++;
    for (const [token, count] of counts.entries())
      if (expected[token] === 0) expect(count, `token ${token}, which is not kept`).toBe(0);
    const { statistic, degrees } = chiSquare(counts, expected, n);
    // Mean `degrees`, variance 2 · degrees: four deviations. Seeds are fixed, so the outcome is too.
    expect(statistic).toBeLessThan(degrees + 4 * Math.sqrt(2 * degrees));
  });
});

describe('on the embedded model', () => {
  it('bans bad_words where they start a text and where they follow a space', async () => {
    await using llm = await LLM.load(stories, { device: 'cpu' });
    const start = 'Once upon a time, there was a little fox. The fox';
    const params = { temperature: 0, maxTokens: 60 };
    const plain = (await only(llm, start, params))[0]!.text;
    const words = [...new Set(plain.match(/[a-z]{3,}/g))].slice(0, 4);
    expect(words.length).toBe(4);
    const { text } = (await only(llm, start, { ...params, badWords: words }))[0]!;
    for (const word of words) expect(text).not.toMatch(new RegExp(` ${word}\\b`));
  });
});

/** Softmax after temperature, then min_p, then top_k, then top_p, each on what the one before left. [vocabulary], 0: not kept. */
function keptProbabilities(logprobs: readonly number[], params: Partial<SamplingParams>): number[] {
  const { temperature = 1, minP = 0, topK = logprobs.length, topP = 1 } = params;
  const scaled = softmax(logprobs.map((logprob) => logprob / temperature));
  const floor = minP * Math.max(...scaled);
  const byRank = [...scaled.keys()].toSorted((a, b) => scaled[b]! - scaled[a]!);
  const candidates = byRank.filter((token) => scaled[token]! >= floor).slice(0, topK);
  const total = candidates.reduce((sum, token) => sum + scaled[token]!, 0);
  const kept: number[] = logprobs.map(() => 0);
  let mass = 0;
  for (const token of candidates) {
    if (mass >= topP * total) break;
    kept[token] = scaled[token]!;
    mass += scaled[token]!;
  }
  return kept.map((probability) => probability / mass);
}

function softmax(logits: readonly number[]): number[] {
  const max = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - max));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** Pearson's statistic; tokens expected fewer than ten times are counted together. */
function chiSquare(counts: readonly number[], probabilities: readonly number[], n: number) {
  const cells: { count: number; mean: number }[] = [];
  const rest = { count: 0, mean: 0 };
  for (const [token, probability] of probabilities.entries()) {
    const count = counts[token]!;
    if (probability * n >= 10) cells.push({ count, mean: probability * n });
    else {
      rest.count += count;
      rest.mean += probability * n;
    }
  }
  if (rest.mean >= 5) cells.push(rest);
  const statistic = cells.reduce((sum, { count, mean }) => sum + (count - mean) ** 2 / mean, 0);
  return { statistic, degrees: cells.length - 1 };
}
