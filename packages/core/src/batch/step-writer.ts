import { rowMode, stepHeader, stepMagic, stepVersion, type StepHeaderField } from '../backend/index.js';
import { padSeqCount, padTokenCount } from '../program/bucketing.js';
import type { SamplerRow } from '../sampling/sampler-row.js';
import { ScheduledStep } from '../scheduler/scheduled-step.js';
import type { Sequence } from '../scheduler/sequence.js';
import type { CaptureKeys } from './capture-keys.js';
import { StepBuffer } from './step-buffer.js';

export interface StepWriterOptions {
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  /** Token counts a step may have, ascending; empty: any. */
  readonly tokenBuckets: readonly number[];
  /** Numbers of sequences a step of single tokens may have, ascending; empty: any. */
  readonly decodeBuckets?: readonly number[];
  /** Shared by the writers of an engine; absent: steps bear no key. */
  readonly captureKeys?: CaptureKeys | undefined;
  readonly blockSize: number;
  /** Blocks of the longest sequence there may be; absent: unknown. */
  readonly maxBlocksPerSeq?: number;
}

const at = Object.fromEntries(stepHeader.map((field, i) => [field, i])) as Record<StepHeaderField, number>;

/** What some row of the step asks of sampling: rarely used lists, then noise, limits of what may be sampled, logprobs and penalties. */
interface SamplingNeeds {
  suppress: boolean;
  allowed: boolean;
  bias: boolean;
  badWords: boolean;
  history: boolean;
  noise: boolean;
  limits: boolean;
  logprobs: boolean;
  penalties: boolean;
}

/**
 * Writes scheduled steps into one buffer that is used again and again: one writer per step in flight. Logit rows are in
 * the order of the entries; of an entry, its prompt rows come first, then the sampled one.
 */
export class StepWriter {
  readonly #options: StepWriterOptions;
  readonly #buffer: StepBuffer;
  /** [maxNumSeqs]: the table (by generation) and the number of its blocks that each row of blockTables holds. */
  readonly #rowGenerations: Float64Array;
  readonly #rowBlocks: Int32Array;
  /** Counts of the step, padding included. */
  #numTokens = 0;
  #numSeqs = 0;
  #numLogitRows = 0;
  #tablesVersion = -1;
  #stride = 0;
  readonly #needs: SamplingNeeds = {
    suppress: false,
    allowed: false,
    bias: false,
    badWords: false,
    history: false,
    noise: false,
    limits: false,
    logprobs: false,
    penalties: false,
  };

  constructor(options: StepWriterOptions) {
    const maxSeqs = padSeqCount(options.maxNumSeqs, options.decodeBuckets ?? []);
    const maxTokens = Math.max(padTokenCount(options.maxNumBatchedTokens, options.tokenBuckets), maxSeqs);
    this.#options = options;
    this.#buffer = new StepBuffer({ maxTokens, maxSeqs, maxLogitRows: maxTokens });
    this.#rowGenerations = new Float64Array(maxSeqs);
    this.#rowBlocks = new Int32Array(maxSeqs);
  }

  /** Logit rows of the last step that was written, padding included. */
  get numLogitRows(): number {
    return this.#numLogitRows;
  }

  /** The whole step, valid until the next `write`. */
  write(step: ScheduledStep, stepId: number): Int32Array {
    const { decodeBuckets = [], tokenBuckets } = this.#options;
    const { numTokens, numSeqs, numLogitRows } = step;
    if (decodeBuckets.length > 0 && numTokens === numSeqs) {
      const bucket = padSeqCount(numSeqs, decodeBuckets);
      return this.#write(step, stepId, bucket, bucket, bucket);
    }
    return this.#write(step, stepId, padTokenCount(numTokens, tokenBuckets), numSeqs, numLogitRows);
  }

  /** A step of nothing but padding: sequences of one token each, and further tokens. */
  writePadding(numTokens: number, numSeqs: number, stepId: number): Int32Array {
    return this.#write(new ScheduledStep(0), stepId, numTokens, numSeqs, numSeqs);
  }

  /** The counts include padding. */
  #write(
    step: ScheduledStep,
    stepId: number,
    numTokens: number,
    numSeqs: number,
    numLogitRows: number,
  ): Int32Array {
    this.#numTokens = numTokens;
    this.#numSeqs = numSeqs;
    this.#numLogitRows = numLogitRows;
    this.#buffer.clearRagged();
    this.#clearNeeds();
    this.#writeTokens(step);
    this.#writeRows(step);
    this.#writePadding(step);
    const numHistorySeqs = this.#needs.history ? this.#writeHistory(step) : 0;
    this.#writeRagged(step);
    this.#writeBlockTables(step);
    const sizeWords = this.#buffer.blockTablesAt + this.#numSeqs * this.#stride;
    this.#writeHeader(step, { stepId, sizeWords, numHistorySeqs });
    return this.#buffer.words.subarray(0, sizeWords);
  }

  #writeHeader(
    step: ScheduledStep,
    { stepId, sizeWords, numHistorySeqs }: Record<'stepId' | 'sizeWords' | 'numHistorySeqs', number>,
  ): void {
    const { words } = this.#buffer;
    words[at.magic] = stepMagic;
    words[at.version] = stepVersion;
    words[at.stepId] = stepId;
    words[at.numTokens] = this.#numTokens;
    words[at.numSeqs] = this.#numSeqs;
    words[at.numLogitRows] = this.#numLogitRows;
    words[at.blockTableStride] = this.#stride;
    words[at.maxTopLogprobs] = step.maxTopLogprobs;
    words[at.sizeWords] = sizeWords;
    words[at.numHistorySeqs] = numHistorySeqs;
    words[at.captureKey] = this.#captureKey(step.maxTopLogprobs, numHistorySeqs);
  }

  /** Only steps of single tokens without lists recur. */
  #captureKey(maxTopLogprobs: number, numHistorySeqs: number): number {
    const { captureKeys } = this.#options;
    if (captureKeys === undefined || this.#numTokens !== this.#numSeqs || numHistorySeqs > 0) return 0;
    const { suppress, allowed, bias, badWords, noise, limits, logprobs, penalties } = this.#needs;
    if (suppress || allowed || bias || badWords) return 0;
    return captureKeys.keyOf(
      this.#numSeqs,
      this.#numLogitRows,
      this.#stride,
      maxTopLogprobs,
      this.#buffer.blockTablesAt,
      (noise ? 1 : 0) | (logprobs ? 2 : 0) | (penalties ? 4 : 0) | (limits ? 8 : 0),
    );
  }

  /** Tokens, positions, slots and the per-sequence regions. */
  #writeTokens(step: ScheduledStep): void {
    const { words, at: region } = this.#buffer;
    let token = 0;
    for (let i = 0; i < step.numSeqs; i++) {
      const sequence = step.sequences[i]!;
      const start = step.starts[i]!;
      const count = step.counts[i]!;
      words[region.cuSeqlensQ + i] = token;
      words[region.seqLens + i] = start + count;
      words[region.promptLens + i] = sequence.numPromptTokens;
      words[region.seqSlots + i] = sequence.slot;
      this.#writeSpan(sequence, start, count, token);
      token += count;
    }
    words[region.cuSeqlensQ + step.numSeqs] = token;
  }

  /** Tokens that are stored nowhere, sequences of one token, and rows of which nothing is sampled. */
  #writePadding(step: ScheduledStep): void {
    const { words, at: region } = this.#buffer;
    for (let token = step.numTokens; token < this.#numTokens; token++) {
      words[region.tokenIds + token] = 0;
      words[region.positions + token] = 0;
      words[region.slotMapping + token] = -1;
    }
    for (let seq = step.numSeqs; seq < this.#numSeqs; seq++) {
      words[region.cuSeqlensQ + seq + 1] = seq + 1;
      words[region.seqLens + seq] = 1;
      words[region.promptLens + seq] = 1;
      words[region.seqSlots + seq] = 0;
    }
    for (let row = step.numLogitRows; row < this.#numLogitRows; row++)
      this.#writeRow(row, Math.min(row, this.#numSeqs - 1), Math.min(row, this.#numTokens - 1), 0, -1, -1);
  }

  #writeSpan(sequence: Sequence, start: number, count: number, token: number): void {
    const { words, at: region } = this.#buffer;
    const { blockSize } = this.#options;
    const { tokenIds, table } = sequence;
    let index = Math.floor(start / blockSize);
    let offset = start - index * blockSize;
    let slot = table.blocks[index]! * blockSize + offset;
    for (let j = 0; j < count; j++) {
      if (offset === blockSize) {
        offset = 0;
        slot = table.blocks[++index]! * blockSize;
      }
      words[region.tokenIds + token + j] = tokenIds[start + j]!;
      words[region.positions + token + j] = start + j;
      words[region.slotMapping + token + j] = slot++;
      offset++;
    }
  }

  #writeRows(step: ScheduledStep): void {
    let row = 0;
    for (let i = 0; i < step.numSeqs; i++) {
      const sequence = step.sequences[i]!;
      const firstToken = this.#buffer.words[this.#buffer.at.cuSeqlensQ + i]!;
      for (let j = 0; j < step.scoreCounts[i]!; j++) {
        const position = step.scoreStarts[i]! + j;
        this.#writeScoreRow(row++, i, firstToken + position - step.starts[i]!, sequence, position);
      }
      if (step.samples[i] === 1)
        this.#writeSampleRow(row++, i, firstToken + step.counts[i]! - 1, step, sequence);
      if (step.fresh[i] === 1 && sequence.sampler.needsHistory) this.#needs.history = true;
    }
  }

  /** The logprob of the prompt token after `position`, from the raw logits. */
  #writeScoreRow(row: number, entry: number, token: number, sequence: Sequence, position: number): void {
    const target = sequence.tokenIds[position + 1]!;
    this.#writeRow(row, entry, token, rowMode.target, target, sequence.sampler.numPromptLogprobs);
  }

  /** A row from which nothing is sampled. */
  #writeRow(
    row: number,
    entry: number,
    token: number,
    mode: number,
    target: number,
    numLogprobs: number,
  ): void {
    const { words, floats, at: region } = this.#buffer;
    words[region.logitRows + row] = token;
    words[region.rowSeqs + row] = entry;
    words[region.rowModes + row] = mode;
    words[region.targets + row] = target;
    words[region.numLogprobs + row] = numLogprobs;
    if (numLogprobs >= 0) this.#needs.logprobs = true;
    words[region.seedLow + row] = 0;
    words[region.seedHigh + row] = 0;
    floats[region.temperature + row] = 1;
    words[region.topK + row] = 0;
    floats[region.topP + row] = 1;
    floats[region.minP + row] = 0;
    floats[region.presencePenalty + row] = 0;
    floats[region.frequencyPenalty + row] = 0;
    floats[region.repetitionPenalty + row] = 1;
  }

  #writeSampleRow(row: number, entry: number, token: number, step: ScheduledStep, sequence: Sequence): void {
    const { words, floats, at: region } = this.#buffer;
    const { sampler } = sequence;
    words[region.logitRows + row] = token;
    words[region.rowSeqs + row] = entry;
    words[region.rowModes + row] = sampler.mode;
    words[region.targets + row] = -1;
    words[region.numLogprobs + row] = sampler.numLogprobs;
    words[region.seedLow + row] = sampler.seedLow;
    words[region.seedHigh + row] = sampler.seedHigh;
    floats[region.temperature + row] = sampler.temperature;
    words[region.topK + row] = sampler.topK;
    floats[region.topP + row] = sampler.topP;
    floats[region.minP + row] = sampler.minP;
    floats[region.presencePenalty + row] = sampler.presencePenalty;
    floats[region.frequencyPenalty + row] = sampler.frequencyPenalty;
    floats[region.repetitionPenalty + row] = sampler.repetitionPenalty;
    this.#noteNeeds(step, entry, sampler);
  }

  #clearNeeds(): void {
    this.#needs.suppress = false;
    this.#needs.allowed = false;
    this.#needs.bias = false;
    this.#needs.badWords = false;
    this.#needs.history = false;
    this.#needs.noise = false;
    this.#needs.limits = false;
    this.#needs.logprobs = false;
    this.#needs.penalties = false;
  }

  #noteNeeds(step: ScheduledStep, entry: number, sampler: SamplerRow): void {
    if (sampler.minTokens > 0 && suppresses(step, entry)) this.#needs.suppress = true;
    if (sampler.allowedTokens.length > 0) this.#needs.allowed = true;
    if (sampler.biasTokens.length > 0) this.#needs.bias = true;
    if (sampler.badWords.length > 0) this.#needs.badWords = true;
    if ((sampler.mode & rowMode.greedy) === 0) {
      this.#needs.noise = true;
      if (sampler.topK > 0 || sampler.topP < 1 || sampler.minP > 0) this.#needs.limits = true;
    }
    if (sampler.numLogprobs >= 0) this.#needs.logprobs = true;
    if (hasPenalty(sampler)) this.#needs.penalties = true;
  }

  /** Tokens so far of sequences whose slot is new; pending ones cannot be among them. Returns how many sequences. */
  #writeHistory(step: ScheduledStep): number {
    const entries: number[] = [];
    let numTokens = 0;
    for (let i = 0; i < step.numSeqs; i++) {
      const sequence = step.sequences[i]!;
      if (step.fresh[i] !== 1 || !sequence.sampler.needsHistory) continue;
      entries.push(i);
      numTokens += sequence.numKnownTokens;
    }
    const seqsAt = this.#buffer.addRagged('historySeqs', entries.length);
    const offsetsAt = this.#buffer.addRagged('historyOffsets', entries.length + 1);
    const tokensAt = this.#buffer.addRagged('historyTokens', numTokens);
    const { words } = this.#buffer;
    let offset = 0;
    entries.forEach((entry, i) => {
      const sequence = step.sequences[entry]!;
      words[seqsAt + i] = entry;
      words[offsetsAt + i] = offset;
      words.set(sequence.tokenIds.subarray(0, sequence.numKnownTokens), tokensAt + offset);
      offset += sequence.numKnownTokens;
    });
    words[offsetsAt + entries.length] = offset;
    return entries.length;
  }

  #writeRagged(step: ScheduledStep): void {
    const needs = this.#needs;
    if (needs.suppress) {
      this.#writeLists(step, 'suppressOffsets', 'suppressTokens', (entry, sampler) =>
        sampler.minTokens > 0 && suppresses(step, entry) ? sampler.suppressTokens : none,
      );
    }
    if (needs.allowed)
      this.#writeLists(step, 'allowedOffsets', 'allowedTokens', (_, sampler) => sampler.allowedTokens);
    if (needs.badWords)
      this.#writeLists(step, 'badWordsOffsets', 'badWords', (_, sampler) => sampler.badWords);
    if (needs.bias) {
      this.#writeLists(step, 'biasOffsets', 'biasTokens', (_, sampler) => sampler.biasTokens);
      this.#writeBiasValues(step);
    }
  }

  /** One list per logit row, as offsets [L + 1] and values. Prompt rows have empty lists. */
  #writeLists(
    step: ScheduledStep,
    offsetsRegion: 'suppressOffsets' | 'allowedOffsets' | 'biasOffsets' | 'badWordsOffsets',
    valuesRegion: 'suppressTokens' | 'allowedTokens' | 'biasTokens' | 'badWords',
    listOf: (entry: number, sampler: SamplerRow) => Int32Array,
  ): void {
    let total = 0;
    for (let i = 0; i < step.numSeqs; i++) {
      if (step.samples[i] === 1) total += listOf(i, step.sequences[i]!.sampler).length;
    }
    const offsetsAt = this.#buffer.addRagged(offsetsRegion, this.#numLogitRows + 1);
    const valuesAt = this.#buffer.addRagged(valuesRegion, total);
    const { words } = this.#buffer;
    let row = 0;
    let offset = 0;
    for (let i = 0; i < step.numSeqs; i++) {
      for (let j = 0; j < step.scoreCounts[i]!; j++) words[offsetsAt + row++] = offset;
      if (step.samples[i] !== 1) continue;
      const list = listOf(i, step.sequences[i]!.sampler);
      words[offsetsAt + row++] = offset;
      words.set(list, valuesAt + offset);
      offset += list.length;
    }
    while (row <= this.#numLogitRows) words[offsetsAt + row++] = offset;
  }

  #writeBiasValues(step: ScheduledStep): void {
    let total = 0;
    for (let i = 0; i < step.numSeqs; i++) {
      if (step.samples[i] === 1) total += step.sequences[i]!.sampler.biasValues.length;
    }
    let cursor = this.#buffer.addRagged('biasValues', total);
    for (let i = 0; i < step.numSeqs; i++) {
      if (step.samples[i] !== 1) continue;
      const { biasValues } = step.sequences[i]!.sampler;
      this.#buffer.floats.set(biasValues, cursor);
      cursor += biasValues.length;
    }
  }

  /** Rows keep their place while their sequences do, so mostly only new blocks are written. */
  #writeBlockTables(step: ScheduledStep): void {
    let longest = 1;
    for (let i = 0; i < step.numSeqs; i++) longest = Math.max(longest, step.sequences[i]!.table.numBlocks);
    if (longest > this.#stride || 4 * Math.max(longest, smallestStride) < this.#stride) {
      this.#stride = this.#strideFor(longest);
      this.#tablesVersion = -1;
    }
    this.#buffer.reserveTables(this.#numSeqs * this.#stride);
    if (this.#tablesVersion !== this.#buffer.version) {
      this.#rowGenerations.fill(0);
      this.#tablesVersion = this.#buffer.version;
    }
    for (let i = 0; i < step.numSeqs; i++) this.#writeBlockTable(i, step.sequences[i]!);
    for (let i = step.numSeqs; i < this.#numSeqs; i++) this.#writePaddedTable(i);
  }

  /** In few sizes, since each is a shape of its own to whoever records steps. */
  #strideFor(longest: number): number {
    const { maxBlocksPerSeq = Infinity } = this.#options;
    const stride = Math.max(smallestStride, 2 ** Math.ceil(Math.log2(longest)));
    return Math.max(longest, Math.min(stride, maxBlocksPerSeq));
  }

  #writePaddedTable(row: number): void {
    this.#rowGenerations[row] = 0;
    this.#buffer.words[this.#buffer.blockTablesAt + row * this.#stride] = 0;
  }

  #writeBlockTable(row: number, { table }: Sequence): void {
    const { words, blockTablesAt } = this.#buffer;
    if (this.#rowGenerations[row] !== table.generation) {
      this.#rowGenerations[row] = table.generation;
      this.#rowBlocks[row] = 0;
    }
    const base = blockTablesAt + row * this.#stride;
    for (let i = this.#rowBlocks[row]!; i < table.numBlocks; i++) words[base + i] = table.blocks[i]!;
    this.#rowBlocks[row] = table.numBlocks;
  }
}

const none = new Int32Array(0);

/** Of a row of block tables. */
const smallestStride = 64;

const hasPenalty = (sampler: SamplerRow): boolean =>
  sampler.presencePenalty !== 0 || sampler.frequencyPenalty !== 0 || sampler.repetitionPenalty !== 1;

/** Whether the token to be sampled comes before the sequence's minTokens. */
function suppresses(step: ScheduledStep, entry: number): boolean {
  const sequence = step.sequences[entry]!;
  const numOutputTokens = step.starts[entry]! + step.counts[entry]! - sequence.numPromptTokens;
  return numOutputTokens < sequence.sampler.minTokens;
}
