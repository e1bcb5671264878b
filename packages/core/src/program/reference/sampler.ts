/** The sampler's state and the way from a step's rows to the result buffer. Rows themselves: `sample.ts`. */
import { resultHeaderWords, rowMode } from '../../backend/index.js';
import { sampleRow, type SampleResult, type SampleRow } from './sample.js';
import type { StepReader } from './step-reader.js';

/** The tokens of a slot's sequence so far: prompt, then output. */
interface History {
  readonly tokens: number[];
  readonly promptLen: number;
}

export class Sampler {
  /** [maxSeqs], by slot; -1: none yet. */
  readonly #lastTokens: Int32Array;
  readonly #histories = new Map<number, History>();

  constructor(maxSeqs: number) {
    this.#lastTokens = new Int32Array(maxSeqs).fill(-1);
  }

  /** The last token sampled for the slot: what a token id of -1 means. */
  lastToken(slot: number): number {
    return this.#lastTokens[slot]!;
  }

  /** Takes over the histories that the step brings. */
  beginStep(step: StepReader): void {
    const n = step.numHistorySeqs;
    const seqs = step.ints('historySeqs', n);
    const slots = step.ints('seqSlots', step.numSeqs);
    const promptLens = step.ints('promptLens', step.numSeqs);
    seqs.forEach((seq, i) => {
      const tokens = Array.from(step.list('historyOffsets', 'historyTokens', n, i));
      this.#histories.set(slots[seq]!, { tokens, promptLen: promptLens[seq]! });
    });
  }

  /** Samples logits [rows, V] of the step's rows from `firstRow` on; writes the result's rows. Returns the tokens. */
  sampleRows(
    step: StepReader,
    logits: Float32Array,
    vocabSize: number,
    firstRow: number,
    result: Int32Array,
  ): Int32Array {
    const tokens = new Int32Array(logits.length / vocabSize);
    for (let i = 0; i < tokens.length; i++) {
      const row = firstRow + i;
      const slot = step.ints('seqSlots', step.numSeqs)[step.ints('rowSeqs', step.numLogitRows)[row]!]!;
      const params = this.#readRow(step, row, slot);
      const sampled = sampleRow(logits.subarray(i * vocabSize, (i + 1) * vocabSize), params);
      tokens[i] = sampled.token;
      writeRow(step, row, sampled, result);
      if ((params.mode & rowMode.sample) === 0) continue;
      this.#lastTokens[slot] = sampled.token;
      this.#histories.get(slot)?.tokens.push(sampled.token);
    }
    return tokens;
  }

  #readRow(step: StepReader, row: number, slot: number): SampleRow {
    const L = step.numLogitRows;
    const history = this.#histories.get(slot) ?? { tokens: [], promptLen: 0 };
    const token = step.ints('logitRows', L)[row]!;
    return {
      mode: step.ints('rowModes', L)[row]!,
      seed: step.seed(row),
      position: step.ints('positions', step.numTokens)[token]!,
      temperature: step.floats('temperature', L)[row]!,
      topK: step.ints('topK', L)[row]!,
      topP: step.floats('topP', L)[row]!,
      minP: step.floats('minP', L)[row]!,
      presencePenalty: step.floats('presencePenalty', L)[row]!,
      frequencyPenalty: step.floats('frequencyPenalty', L)[row]!,
      repetitionPenalty: step.floats('repetitionPenalty', L)[row]!,
      suppressTokens: step.list('suppressOffsets', 'suppressTokens', L, row),
      allowedTokens: step.list('allowedOffsets', 'allowedTokens', L, row),
      biasTokens: step.list('biasOffsets', 'biasTokens', L, row),
      biasValues: step.floatList('biasOffsets', 'biasValues', L, row),
      badWords: step.list('badWordsOffsets', 'badWords', L, row),
      promptTokens: history.tokens.slice(0, history.promptLen),
      outputTokens: history.tokens.slice(history.promptLen),
      target: step.ints('targets', L)[row]!,
      numLogprobs: step.ints('numLogprobs', L)[row]!,
    };
  }
}

function writeRow(step: StepReader, row: number, sampled: SampleResult, result: Int32Array): void {
  const L = step.numLogitRows;
  const K = step.maxTopLogprobs;
  const floats = new Float32Array(result.buffer, result.byteOffset, result.length);
  result[resultHeaderWords + row] = sampled.token;
  floats[resultHeaderWords + L + row] = sampled.logprob;
  result[resultHeaderWords + 2 * L + row] = sampled.rank;
  const ids = resultHeaderWords + 3 * L + row * K;
  for (let i = 0; i < K; i++) {
    result[ids + i] = sampled.topIds[i] ?? -1;
    floats[ids + L * K + i] = sampled.topLogprobs[i] ?? -1;
  }
}
