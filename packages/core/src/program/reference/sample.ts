/**
 * Sampling of one logit row: the definition that every backend's sampler follows.
 *
 * Input: f32 logits `l[i]`, i < V (NaN counts as -inf). All steps below are in f32 unless they say double.
 *
 *  1. `raw` = l, kept untouched.
 *  2. Masks, to -inf: every token outside `allowedTokens` (if that list is not empty); every token of `suppressTokens`;
 *     for each bad word w[0..n-1]: w[n-1], if the last n - 1 *output* tokens equal w[0..n-2] (n = 1: always).
 *  3. Logit bias: l[t] += value, per entry.
 *  4. Penalties. Repetition r ≠ 1, once per distinct token of prompt and output: l = l > 0 ? l / r : l * r. Then, with
 *     c = times that the token is in the output, c > 0: l = l - frequency * c, then l = l - presence.
 *  5. Greedy rows: the token of the largest l, the lowest id among equals (0 if all are -inf). Done.
 *  6. Temperature: x[i] = l[i] / temperature. m = max x. If m is infinite: as greedy.
 *     Weights in double: w[i] = exp(x[i] - m). Kept set K = { i : x[i] > -inf }.
 *  7. min_p > 0: K keeps i with w[i] ≥ min_p.
 *  8. top_k > 0 and fewer than |K|: K keeps i with x[i] ≥ the top_k-th largest x of K (ties are all kept).
 *  9. top_p < 1: K in descending x, the lower id first among equals; K keeps the shortest prefix whose Σ w ≥ top_p * Σ w of
 *     all of K (sums in double), at least one token.
 * 10. u = `uniform(seed, position)`. total = Σ w over K, in double, ascending ids. The token is the first of K, in ascending
 *     ids, whose running sum (double) exceeds u * total; the last of K if rounding leaves none.
 *
 * `uniform`: z = mix(mix(seed + (position + 1) * 0x9E3779B97F4A7C15 mod 2^64)), u = (z >> 11) / 2^53, where mix is
 * splitmix64's finalizer and position that of the row's input token (so position + 1 is the sampled token's own). Nothing
 * else enters, so a token does not depend on the batch, the chunking, or the slot.
 *
 * Logprobs are of the raw logits, or with `rowMode.processedLogprobs` of those sampled from: greedy rows l after step 4, others
 * x with -inf outside K. logprob = v - max - log Σ exp(v - max), sum in double over ascending ids. rank = 1 + the number of
 * tokens with a larger v. The top list is in descending v, the lower id first among equals.
 */
import { rowMode } from '../../backend/index.js';

/** One row's parameters. */
export interface SampleRow {
  /** Bits of `rowMode`. */
  readonly mode: number;
  /** Unsigned 64 bits. */
  readonly seed: bigint;
  /** Position of the row's input token. */
  readonly position: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  readonly suppressTokens: Int32Array;
  /** Empty: all are allowed. */
  readonly allowedTokens: Int32Array;
  readonly biasTokens: Int32Array;
  readonly biasValues: Float32Array;
  /** [length, tokens…] per bad word. */
  readonly badWords: Int32Array;
  readonly promptTokens: ArrayLike<number>;
  readonly outputTokens: ArrayLike<number>;
  /** Token whose logprob a `target` row wants. */
  readonly target: number;
  /** Entries of the top list; negative: no logprobs at all. */
  readonly numLogprobs: number;
}

export interface SampleResult {
  /** -1 where the row does not sample. */
  readonly token: number;
  /** Of `target` or of the token; 0 where there is neither, or none is wanted. */
  readonly logprob: number;
  /** 1 = most likely; 0 where there is none. */
  readonly rank: number;
  /** [min(numLogprobs, V)] each. */
  readonly topIds: readonly number[];
  readonly topLogprobs: readonly number[];
}

const mask64 = (1n << 64n) - 1n;

/** splitmix64's finalizer. */
function mix(value: bigint): bigint {
  let z = value;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask64;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask64;
  return z ^ (z >> 31n);
}

/** The row's noise, in [0, 1). */
export function uniform(seed: bigint, position: number): number {
  const z = mix(mix((seed + BigInt(position + 1) * 0x9e3779b97f4a7c15n) & mask64));
  return Number(z >> 11n) / 2 ** 53;
}

/** Samples, scores or both, as `row.mode` says. `logits` [V] is not changed. */
export function sampleRow(logits: Float32Array, row: SampleRow): SampleResult {
  const raw = logits.map((value) => (Number.isNaN(value) ? -Infinity : value));
  const sampling = (row.mode & rowMode.sample) !== 0;
  const processing = (row.mode & rowMode.processedLogprobs) !== 0;
  if (!sampling && !processing) return withLogprobs(raw, -1, row);
  const processed = penalize(raw.slice(), row);
  if ((row.mode & rowMode.greedy) !== 0) {
    return withLogprobs(processing ? processed : raw, sampling ? argmax(processed) : -1, row);
  }
  const scaled = keepTokens(
    processed.map((value) => value / row.temperature),
    row,
  );
  const token = sampling ? pickToken(scaled, uniform(row.seed, row.position)) : -1;
  return withLogprobs(processing ? scaled : raw, token, row);
}

/** Steps 2 to 4, in place. */
function penalize(logits: Float32Array, row: SampleRow): Float32Array {
  maskTokens(logits, row);
  for (let i = 0; i < row.biasTokens.length; i++) {
    const token = row.biasTokens[i]!;
    if (token >= 0 && token < logits.length) logits[token]! += row.biasValues[i]!;
  }
  applyPenalties(logits, row);
  return logits;
}

function maskTokens(logits: Float32Array, row: SampleRow): void {
  if (row.allowedTokens.length > 0) {
    const allowed = new Set(row.allowedTokens);
    for (let i = 0; i < logits.length; i++) if (!allowed.has(i)) logits[i] = -Infinity;
  }
  for (const token of row.suppressTokens) if (token < logits.length) logits[token] = -Infinity;
  for (const token of finishedBadWords(row)) if (token < logits.length) logits[token] = -Infinity;
}

/** The tokens that would complete a bad word. */
function finishedBadWords({ badWords, outputTokens }: SampleRow): number[] {
  const tokens: number[] = [];
  for (let at = 0; at < badWords.length; at += badWords[at]! + 1) {
    const length = badWords[at]!;
    const begin = outputTokens.length - (length - 1);
    if (length === 0 || begin < 0) continue;
    const prefix = badWords.subarray(at + 1, at + length);
    if (prefix.every((token, i) => outputTokens[begin + i] === token)) tokens.push(badWords[at + length]!);
  }
  return tokens;
}

function applyPenalties(logits: Float32Array, row: SampleRow): void {
  const outputCounts = new Map<number, number>();
  for (let i = 0; i < row.outputTokens.length; i++) {
    const token = row.outputTokens[i]!;
    outputCounts.set(token, (outputCounts.get(token) ?? 0) + 1);
  }
  const repetition = Math.fround(row.repetitionPenalty);
  if (repetition !== 1) {
    for (const token of new Set([...Array.from(row.promptTokens), ...outputCounts.keys()])) {
      const value = logits[token];
      if (value !== undefined) logits[token] = value > 0 ? value / repetition : value * repetition;
    }
  }
  for (const [token, count] of outputCounts) {
    if (logits[token] === undefined) continue;
    logits[token]! -= Math.fround(Math.fround(row.frequencyPenalty) * count);
    logits[token]! -= Math.fround(row.presencePenalty);
  }
}

/** The lowest id of the largest value. */
function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

const weightOf = (value: number, max: number): number => Math.exp(value - max);

/** Steps 7 to 9: sets what is not kept to -inf, in place. */
function keepTokens(scaled: Float32Array, { minP, topK, topP }: SampleRow): Float32Array {
  const max = scaled[argmax(scaled)]!;
  if (!Number.isFinite(max)) return scaled;
  if (minP > 0) {
    for (let i = 0; i < scaled.length; i++) if (weightOf(scaled[i]!, max) < minP) scaled[i] = -Infinity;
  }
  const restricted = topK > 0 || topP < 1;
  const kept = restricted ? descending(scaled).filter((i) => scaled[i]! > -Infinity) : [];
  if (topK > 0 && topK < kept.length) {
    const threshold = scaled[kept[topK - 1]!]!;
    while (scaled[kept.at(-1)!]! < threshold) scaled[kept.pop()!] = -Infinity;
  }
  if (topP < 1) for (const i of kept.slice(prefixLength(scaled, kept, max, topP))) scaled[i] = -Infinity;
  return scaled;
}

/** Tokens of the shortest prefix of `kept` that holds `topP` of its weight. */
function prefixLength(scaled: Float32Array, kept: readonly number[], max: number, topP: number): number {
  const weights = kept.map((i) => weightOf(scaled[i]!, max));
  const wanted = topP * weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  for (let n = 0; n < kept.length; n++) {
    sum += weights[n]!;
    if (sum >= wanted) return n + 1;
  }
  return kept.length;
}

/** Step 10. */
function pickToken(scaled: Float32Array, u: number): number {
  const max = scaled[argmax(scaled)]!;
  if (!Number.isFinite(max)) return argmax(scaled);
  let total = 0;
  for (let i = 0; i < scaled.length; i++) total += weightOf(scaled[i]!, max);
  let sum = 0;
  let last = 0;
  for (let i = 0; i < scaled.length; i++) {
    if (scaled[i] === -Infinity) continue;
    last = i;
    sum += weightOf(scaled[i]!, max);
    if (sum > u * total) return i;
  }
  return last;
}

/** Ids in descending value, the lower id first among equals. */
function descending(values: Float32Array): number[] {
  return Array.from(values.keys()).toSorted((a, b) => values[b]! - values[a]! || a - b);
}

function withLogprobs(values: Float32Array, token: number, row: SampleRow): SampleResult {
  const subject = (row.mode & rowMode.target) !== 0 ? row.target : token;
  if (row.numLogprobs < 0) return { token, logprob: 0, rank: 0, topIds: [], topLogprobs: [] };
  const logprobs = logSoftmax(values);
  const topIds = row.numLogprobs > 0 ? descending(values).slice(0, row.numLogprobs) : [];
  const hasSubject = subject >= 0 && subject < values.length;
  return {
    token,
    logprob: hasSubject ? logprobs[subject]! : 0,
    rank: hasSubject ? 1 + values.reduce((n, value) => n + (value > values[subject]! ? 1 : 0), 0) : 0,
    topIds,
    topLogprobs: topIds.map((i) => logprobs[i]!),
  };
}

/** values - max - log Σ exp(values - max). Where the largest is infinite: 0 for +inf, -inf for the others. */
export function logSoftmax(values: Float32Array): Float32Array {
  const max = values[argmax(values)]!;
  if (!Number.isFinite(max)) return values.map((value) => (value === Infinity ? 0 : -Infinity));
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.exp(values[i]! - max);
  const logSum = Math.log(sum);
  return values.map((value) => value - max - logSum);
}
