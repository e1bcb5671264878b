import { stepHeader, stepHeaderWords, stepRegionNames, type StepRegion } from '../backend/index.js';

export interface StepLimits {
  /** Tokens of a step, padding included. */
  readonly maxTokens: number;
  readonly maxSeqs: number;
  readonly maxLogitRows: number;
}

type FixedRegion = Exclude<StepRegion, RaggedRegion | 'blockTables'>;
type RaggedRegion =
  | 'historySeqs' | 'historyOffsets' | 'historyTokens' | 'suppressOffsets' | 'suppressTokens' | 'allowedOffsets'
  | 'allowedTokens' | 'biasOffsets' | 'biasTokens' | 'biasValues' | 'badWordsOffsets' | 'badWords'; // prettier-ignore

const perToken = ['tokenIds', 'positions', 'slotMapping'] as const;
const perSeq = ['cuSeqlensQ', 'seqLens', 'promptLens', 'seqSlots'] as const;
const perRow = [
  'logitRows', 'rowSeqs', 'rowModes', 'targets', 'numLogprobs', 'seedLow', 'seedHigh', 'temperature', 'topK', 'topP',
  'minP', 'presencePenalty', 'frequencyPenalty', 'repetitionPenalty',
] as const satisfies readonly FixedRegion[]; // prettier-ignore

const regionWord = (region: StepRegion): number => stepHeader.length + stepRegionNames.indexOf(region);

/**
 * The memory of one step. Word map: header | fixed regions, each at its largest size | ragged regions, one after the
 * other | block tables, [numSeqs, stride]. Only the last two move, and only when they outgrow their place; then a
 * larger buffer replaces this one and `version` changes.
 */
export class StepBuffer {
  words: Int32Array;
  floats: Float32Array;
  /** Word offset of each fixed region. */
  readonly at: Readonly<Record<FixedRegion, number>>;
  /** Changes when the content of the block tables is lost. */
  version = 0;
  readonly #raggedAt: number;
  #raggedEnd: number;
  #raggedCapacity = 1024;
  #numTableWords = 0;

  constructor(limits: StepLimits) {
    let cursor = stepHeaderWords;
    const place = (count: number): number => {
      cursor += count;
      return cursor - count;
    };
    const at: Partial<Record<FixedRegion, number>> = {};
    for (const region of perToken) at[region] = place(limits.maxTokens);
    for (const region of perSeq) at[region] = place(limits.maxSeqs + 1);
    for (const region of perRow) at[region] = place(limits.maxLogitRows);
    this.at = at as Record<FixedRegion, number>;
    this.#raggedAt = cursor;
    this.#raggedEnd = cursor;
    this.words = new Int32Array(cursor + this.#raggedCapacity);
    this.floats = new Float32Array(this.words.buffer);
    for (const region of [...perToken, ...perSeq, ...perRow])
      this.words[regionWord(region)] = this.at[region];
  }

  get blockTablesAt(): number {
    return this.#raggedAt + this.#raggedCapacity;
  }

  /** Forgets the ragged regions. */
  clearRagged(): void {
    this.#raggedEnd = this.#raggedAt;
    for (const region of stepRegionNames) if (!(region in this.at)) this.words[regionWord(region)] = 0;
    this.words[regionWord('blockTables')] = this.blockTablesAt;
  }

  /** Places a ragged region of `count` words after the others; returns its offset. */
  addRagged(region: RaggedRegion, count: number): number {
    const offset = this.#raggedEnd;
    this.#raggedEnd += count;
    const needed = this.#raggedEnd - this.#raggedAt;
    if (needed > this.#raggedCapacity) this.#resize(2 * needed, this.#numTableWords);
    this.words[regionWord(region)] = offset;
    return offset;
  }

  /** Makes room for block tables of `count` words. */
  reserveTables(count: number): void {
    if (count > this.#numTableWords)
      this.#resize(this.#raggedCapacity, Math.max(count, 2 * this.#numTableWords));
  }

  #resize(raggedCapacity: number, numTableWords: number): void {
    const old = this.words;
    this.words = new Int32Array(this.#raggedAt + raggedCapacity + numTableWords);
    this.floats = new Float32Array(this.words.buffer);
    this.words.set(old.subarray(0, Math.min(old.length, this.blockTablesAt)));
    this.#raggedCapacity = raggedCapacity;
    this.#numTableWords = numTableWords;
    this.words[regionWord('blockTables')] = this.blockTablesAt;
    this.version++;
  }
}
