/**
 * Whether a device's answer is right, by another device's, which computes in float32. Both round in other places, so their logits
 * differ a little. As long as the tokens are the same, log-probabilities have to be near. Where they differ first, the token is
 * right if logits within the margin of the other device's would have given it: then both paths are right, and are no longer
 * comparable.
 */
import { rowMode } from '@tenon/core/backend';
import { sampleRow } from '@tenon/core/conformance';
import { loadEngine } from './devices.mjs';

/**
 * How far two logits of a row may be off from each other. In float32 as packages/core/tests/goldens/README.md says; in bf16 twice what it says, as
 * logits of a trained model are larger than theirs (the best one of the embedded model was off by 0.24 on the CPU backend); f16 rounds eight times finer.
 */
export const marginOf = { float32: 2e-3, bfloat16: 0.3, float16: 0.05 };
/** Of log-probabilities: the worst one in float32, the mean of a round in 16 bits. */
const worstLogprob = 1e-3;
const meanLogprob = { bfloat16: 0.04, float16: 0.01 };

/** Answers of the device that is believed, and its distributions. */
export class Judge {
  #device;
  #engines = new Map();

  constructor(device) {
    this.#device = device;
  }

  /** Each whole answer, undisturbed. */
  async answers(round, requests) {
    const { llm } = await this.#engine(round, 'raw_logprobs');
    const answer = async ({ prompt, params }) => (await llm.generate(prompt, params))[0];
    return Promise.all(requests.map(answer));
  }

  /** Whether logits within the margin give `token` after `tokens`, in the sequence with this seed. */
  async couldSample(round, { prompt, params }, seed, tokens, token) {
    const { llm } = await this.#engine(round, 'processed_logprobs');
    const { stop: _stop, promptLogprobs: _promptLogprobs, ...own } = params;
    const minTokens = tokens.length < (params.minTokens ?? 0) ? 1 : 0;
    // penalties for repetition, bias and masks are applied; what counts output tokens, and the choice, follow here
    const unfiltered = { temperature: 1, topP: 1, topK: 0, minP: 0, presencePenalty: 0, frequencyPenalty: 0 };
    const only = { ...own, ...unfiltered, n: 1, minTokens, maxTokens: 1, logprobs: -1, outputKind: 'final' };
    const [{ outputs }] = await llm.generate([...prompt, ...tokens], only);
    const logits = new Float32Array(llm.engine.info.vocabSize).fill(-Infinity);
    for (const { tokenId, logprob } of outputs[0].logprobs[0]) logits[tokenId] = logprob;
    const row = rowOf(params, seed, prompt.length + tokens.length - 1, tokens);
    return isWithin(logits, row, token, marginOf[round.dtype] / 2);
  }

  async #engine({ model }, logprobsMode) {
    const key = `${model} ${logprobsMode}`;
    const options = {
      dtype: 'float32',
      logprobsMode,
      generationConfig: 'tenon',
      maxModelLen: 400,
      maxLogprobs: -1,
      numGpuBlocksOverride: 1200,
    };
    if (!this.#engines.has(key)) this.#engines.set(key, loadEngine(this.#device, model, options));
    return this.#engines.get(key);
  }

  async close() {
    for (const loading of this.#engines.values()) await (await loading).llm.close();
  }
}

/** Whether logits that are off by `margin` at most give `token`. */
function isWithin(logits, row, token, margin) {
  const picked = (below, above, cut = row) =>
    sampleRow(
      logits.map((value, i) => value + margin * (i === token ? 1 : i < token ? below : above)),
      cut,
    ).token;
  if (picked(-1, -1) === token) return true;
  return [row, ...movedCuts(logits, row, 2 * margin)].some((cut) =>
    canTilt((tilt) => picked(tilt, -tilt, cut), token),
  );
}

/** The noise picks by a running sum over ascending ids: with more weight below the token, and less above, a lower one. */
function canTilt(pickedAt, token) {
  let [low, high] = [-1, 1];
  for (let i = 0; i < 40; i++) {
    const tilt = (low + high) / 2;
    const other = pickedAt(tilt);
    if (other === token) return true;
    if (other > token) low = tilt;
    else high = tilt;
  }
  return false;
}

/** Rows whose cuts are where logits that are off by `margin` from each other would have them: the tighter and the looser ones. */
function movedCuts(logits, row, margin) {
  const descending = logits.toSorted((a, b) => b - a);
  return [-1, 1].map((direction) => {
    const factor = Math.exp((direction * margin) / row.temperature);
    const threshold = descending[row.topK - 1] - direction * margin;
    const numKept = logits.filter((logit) => logit >= threshold).length;
    return {
      ...row,
      topP: row.topP === 1 ? 1 : (row.topP * factor) / (1 - row.topP + row.topP * factor),
      topK: row.topK === 0 ? 0 : Math.max(1, numKept),
      minP: row.minP / factor,
    };
  });
}

const none = new Int32Array(0);

/** The parameters of `sampleRow` for what is left to do (packages/core/src/program/reference/sample.ts). */
function rowOf(params, seed, position, outputTokens) {
  const { temperature, topP = 1, topK = 0, minP = 0, presencePenalty = 0, frequencyPenalty = 0 } = params;
  return {
    mode: rowMode.sample | (temperature === 0 ? rowMode.greedy : 0),
    seed: BigInt.asUintN(64, BigInt(seed)),
    position,
    temperature: Math.max(temperature, 0.01),
    topK, topP, minP, presencePenalty, frequencyPenalty,
    repetitionPenalty: 1,
    suppressTokens: none, allowedTokens: none, biasTokens: none, biasValues: new Float32Array(0), badWords: none,
    promptTokens: none,
    outputTokens,
    target: -1,
    numLogprobs: -1,
  }; // prettier-ignore
}

/**
 * What is wrong with a device's answer, in words; undefined if nothing. `seen` counts what was compared.
 * @param got the device's last output, possibly of an aborted request; @param expected the judge's
 */
export async function findFault(judge, round, request, got, expected, seen) {
  const promptFault = compareLogprobs(round, got.promptLogprobs ?? [], expected.promptLogprobs ?? [], seen);
  if (promptFault !== undefined) return `of the prompt: ${promptFault}`;
  for (const output of got.outputs) {
    const fault = await sequenceFault(judge, round, request, output, expected.outputs[output.index], seen);
    if (fault !== undefined) return `sequence ${output.index}: ${fault}`;
  }
  return undefined;
}

async function sequenceFault(judge, round, request, got, expected, seen) {
  const { tokenIds } = got;
  const first = tokenIds.findIndex((token, i) => token !== expected.tokenIds[i]);
  const common = first === -1 ? tokenIds.length : first;
  seen.tokens += common;
  const [a, b] = [got, expected].map(({ logprobs }) => logprobs?.slice(0, common) ?? []);
  const logprobFault = compareLogprobs(round, a, b, seen);
  if (logprobFault !== undefined) return logprobFault;
  if (first === -1) return endFault(got, expected);
  seen.nearTies++;
  const token = tokenIds[first];
  if (first >= expected.tokenIds.length)
    return `goes on with token ${token} where it ends after ${first} tokens (${expected.finishReason})`;
  const seed = request.params.seed + got.index;
  if (await judge.couldSample(round, request, seed, tokenIds.slice(0, first), token)) return undefined;
  return `token ${first + 1} is ${token}; expected ${expected.tokenIds[first]}, and no logits within ${marginOf[round.dtype]} of each other give ${token}`;
}

function endFault(got, expected) {
  if (got.finishReason === 'abort') return undefined;
  const [a, b] = [got, expected].map(({ tokenIds, finishReason, stopReason, text }) =>
    JSON.stringify({ numTokens: tokenIds.length, finishReason, stopReason, text }),
  );
  return a === b ? undefined : `ends with ${a}; expected ${b}`;
}

/** The entries' own token, and the best ones in their order (near ties may swap names, so values are compared). */
function compareLogprobs({ dtype }, got, expected, seen) {
  for (const [i, entries] of got.entries()) {
    for (const [j, { logprob, tokenId }] of (entries ?? []).entries()) {
      const other = expected[i]?.[j]?.logprob;
      if (other === undefined)
        return `logprob ${i + 1} has ${entries.length} entries; expected ${expected[i]?.length}`;
      const off = logprob === other ? 0 : Math.abs(logprob - other);
      seen.logprobs++;
      seen.logprobOff += off;
      seen.worstLogprob = Math.max(seen.worstLogprob, Number.isNaN(off) ? Infinity : off);
      if (dtype === 'float32' && !(off <= worstLogprob))
        return `the log-probability of token ${tokenId}, ${i + 1} of ${got.length}, is ${logprob}; expected ${other}`;
    }
  }
  return undefined;
}

/** In 16 bits single values may be off; what they are off by on average is bounded. */
export function meanFault({ dtype }, { logprobs, logprobOff }) {
  if (dtype === 'float32' || logprobs < 50) return undefined;
  const mean = logprobOff / logprobs;
  if (mean <= meanLogprob[dtype]) return undefined;
  return `${logprobs} log-probabilities are off by ${mean.toFixed(4)} on average; expected ${meanLogprob[dtype]} at most`;
}
