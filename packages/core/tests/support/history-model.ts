import {
  resultHeaderWords, rowMode, stepHeader, stepHeaderWords, stepMagic, stepRegionNames,
  type StepHeaderField, type StepRegion,
} from '../../src/backend/index.js'; // prettier-ignore

/** Reads a step as a backend does. */
export class StepView {
  constructor(readonly words: Int32Array) {}

  field(name: StepHeaderField): number {
    return this.words[stepHeader.indexOf(name)]!;
  }

  offset(region: StepRegion): number {
    return this.words[stepHeader.length + stepRegionNames.indexOf(region)]!;
  }

  at(region: StepRegion, i: number): number {
    return this.words[this.offset(region) + i]!;
  }

  /** Row `i` of a ragged region. */
  list(offsets: StepRegion, values: StepRegion, i: number): Int32Array {
    if (this.offset(offsets) === 0) return new Int32Array(0);
    const start = this.offset(values);
    return this.words.subarray(start + this.at(offsets, i), start + this.at(offsets, i + 1));
  }
}

export interface HistoryModelOptions {
  readonly vocabSize: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxNumSeqs: number;
  /** Called when a step has ended, as by a backend. */
  readonly onStepDone: (stepId: number) => void;
  /** Looks at each step before it runs. */
  readonly inspect?: (step: StepView) => void;
}

/**
 * A model whose "KV" is the token stored in each slot and whose next token is a hash of all tokens that attention can
 * see through the block table, so any wrong block, position, order or stale token changes the answer. Steps run in order
 * and later, like a device's.
 */
export class HistoryModel {
  readonly #options: HistoryModelOptions;
  /** Token and position per slot. */
  readonly #tokens: Int32Array;
  readonly #positions: Int32Array;
  /** Last sampled token per sampler slot. */
  readonly #last: Int32Array;
  readonly #queue: { step: Int32Array; result: Int32Array }[] = [];
  numSteps = 0;

  constructor(options: HistoryModelOptions) {
    this.#options = options;
    this.#tokens = new Int32Array(options.numBlocks * options.blockSize).fill(-1);
    this.#positions = new Int32Array(options.numBlocks * options.blockSize).fill(-1);
    this.#last = new Int32Array(options.maxNumSeqs).fill(-1);
  }

  get numQueued(): number {
    return this.#queue.length;
  }

  run(step: Int32Array, result: Int32Array): void {
    this.#queue.push({ step, result });
    setImmediate(() => this.runOne());
  }

  /** Runs the oldest step in flight. */
  runOne(): void {
    const { step, result } = this.#queue.shift()!;
    const view = new StepView(step);
    if (view.field('magic') !== stepMagic) throw new Error('not a step');
    if (view.field('sizeWords') !== step.length || step.length < stepHeaderWords)
      throw new Error('wrong size');
    this.#options.inspect?.(view);
    this.#writeKv(view);
    this.#sampleRows(view, result);
    this.numSteps++;
    this.#options.onStepDone(view.field('stepId'));
  }

  #writeKv(step: StepView): void {
    for (let seq = 0; seq < step.field('numSeqs'); seq++) {
      for (let token = step.at('cuSeqlensQ', seq); token < step.at('cuSeqlensQ', seq + 1); token++) {
        const id = step.at('tokenIds', token);
        const slot = step.at('slotMapping', token);
        this.#tokens[slot] = id === -1 ? this.#last[step.at('seqSlots', seq)]! : id;
        this.#positions[slot] = step.at('positions', token);
      }
    }
  }

  #sampleRows(step: StepView, result: Int32Array): void {
    const numRows = step.field('numLogitRows');
    const numTop = step.field('maxTopLogprobs');
    const floats = new Float32Array(result.buffer, result.byteOffset, result.length);
    result[0] = step.field('stepId');
    result[1] = 0;
    for (let row = 0; row < numRows; row++) {
      const seq = step.at('rowSeqs', row);
      const position = step.at('positions', step.at('logitRows', row));
      const next = this.#nextToken(step, seq, position);
      const isSampled = (step.at('rowModes', row) & rowMode.sample) !== 0;
      const suppressed = step.list('suppressOffsets', 'suppressTokens', row);
      const allowed = step.list('allowedOffsets', 'allowedTokens', row);
      const sampled = chosenToken(next, allowed, suppressed, this.#options.vocabSize);
      if (isSampled) this.#last[step.at('seqSlots', seq)] = sampled;
      const scored = isSampled ? sampled : step.at('targets', row);
      result[resultHeaderWords + row] = isSampled ? sampled : -1;
      floats[resultHeaderWords + numRows + row] = -Math.abs(next - scored) - position / 1024;
      result[resultHeaderWords + 2 * numRows + row] = 1 + Math.abs(next - scored);
      for (let k = 0; k < numTop; k++) {
        result[resultHeaderWords + 3 * numRows + row * numTop + k] = (next + k) % this.#options.vocabSize;
        floats[resultHeaderWords + (3 + numTop) * numRows + row * numTop + k] = -k;
      }
    }
  }

  /** FNV-1a over what attention sees at `position`, and the seed. */
  #nextToken(step: StepView, seq: number, position: number): number {
    const { blockSize, vocabSize } = this.#options;
    let hash = 0x811c9dc5;
    for (let i = 0; i <= position; i++) {
      const block = step.at('blockTables', seq * step.field('blockTableStride') + Math.floor(i / blockSize));
      const slot = block * blockSize + (i % blockSize);
      if (this.#positions[slot] !== i)
        throw new Error(`slot ${slot} holds position ${this.#positions[slot]}, not ${i}`);
      hash = Math.imul(hash ^ this.#tokens[slot]!, 0x01000193);
    }
    return (hash >>> 8) % vocabSize;
  }
}

/** The first token from `next` on, around the vocabulary, that may come. An empty list allows all. */
function chosenToken(
  next: number,
  allowed: ArrayLike<number>,
  suppressed: ArrayLike<number>,
  vocabSize: number,
): number {
  const allowedSet = new Set(Array.from(allowed));
  const suppressedSet = new Set(Array.from(suppressed));
  for (let i = 0; i < vocabSize; i++) {
    const token = (next + i) % vocabSize;
    if ((allowedSet.size === 0 || allowedSet.has(token)) && !suppressedSet.has(token)) return token;
  }
  throw new Error('no token may come');
}

/** The same model without cache, blocks or batch: the tokens that follow a prompt. */
export function expectedTokens(prompt: readonly number[], count: number, vocabSize: number): number[] {
  const tokens = [...prompt];
  for (let i = 0; i < count; i++) {
    let hash = 0x811c9dc5;
    for (const token of tokens) hash = Math.imul(hash ^ token, 0x01000193);
    tokens.push((hash >>> 8) % vocabSize);
  }
  return tokens.slice(prompt.length);
}
