import type { ReferenceKvCache } from './kv-cache.js';
import { dotRows } from './linear.js';
import type { StepReader } from './step-reader.js';

type Attrs = Readonly<Record<string, number>>;

/**
 * Causal attention over the cache, q [T, numHeads · headDim] → the same shape. Query head h reads KV head
 * h / (numHeads / numKvHeads). Scores in f32, softmax and the weighted sum in double. Padding gives zeros.
 */
export function attention(
  q: Float32Array,
  attrs: Attrs,
  step: StepReader,
  kv: ReferenceKvCache,
): Float32Array {
  const { numHeads, headDim } = attrs as Record<string, number>;
  const y = new Float32Array(q.length);
  const positions = step.ints('positions', step.numTokens);
  step.tokenSeqs().forEach((seq, t) => {
    if (seq < 0) return;
    const blockTable = step.blockTable(seq);
    for (let head = 0; head < numHeads!; head++) {
      const begin = (t * numHeads! + head) * headDim!;
      const query = q.subarray(begin, begin + headDim!);
      y.set(attendHead(query, head, positions[t]!, attrs, kv, blockTable), begin);
    }
  });
  return y;
}

/** One query [headDim] at `position` against the positions it may see. */
function attendHead(
  query: Float32Array,
  head: number,
  position: number,
  attrs: Attrs,
  kv: ReferenceKvCache,
  blockTable: Int32Array,
): Float64Array {
  const { layer, numHeads, numKvHeads, headDim, scale, slidingWindow, softCap } = attrs as Record<
    string,
    number
  >;
  const kvHead = Math.floor(head / (numHeads! / numKvHeads!));
  const first = slidingWindow! > 0 ? Math.max(0, position - slidingWindow! + 1) : 0;
  const scores = Array.from({ length: position - first + 1 }, (_, i) => {
    const { k } = kv.read(layer!, kvHead, blockTable, first + i);
    const score = dotRows(query, 0, k, 0, headDim!) * scale!;
    return softCap! > 0 ? softCap! * Math.tanh(score / softCap!) : score;
  });
  const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = scores.map((score) => Math.exp(score - max));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const y = new Float64Array(headDim!);
  weights.forEach((weight, i) => {
    const { v } = kv.read(layer!, kvHead, blockTable, first + i);
    for (let d = 0; d < headDim!; d++) y[d]! += (weight / total) * v[d]!;
  });
  return y;
}
