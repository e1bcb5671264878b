/** An engine core whose steps a script ends one by one, on a backend that computes nothing: what remains is JavaScript's work. */
import { resultHeaderWords, rowMode, stepHeader, stepRegionNames } from '../src/backend/index.js';
import type { CoreRequest } from '../src/engine/core-messages.js';
import { EngineCore, type EngineCoreOptions } from '../src/engine/engine-core.js';
import { coreStatNames, coreStatsOf, stepFactNames, type CoreStats } from '../src/engine/output-records.js';
import { samplingDefaults } from '../src/sampling/resolve-sampling-params.js';
import { buildSamplerRow } from '../src/sampling/sampler-row.js';

const numLogitRowsWord = stepHeader.indexOf('numLogitRows');
const rowModesWord = stepHeader.length + stepRegionNames.indexOf('rowModes');
const vocabSize = 32_000;
/** Where the records of a step say how many sequences run and wait. */
const numRunningAt = stepFactNames.length + coreStatNames.indexOf('numRunning');
const numWaitingAt = stepFactNames.length + coreStatNames.indexOf('numWaiting');
const sampler = buildSamplerRow(samplingDefaults, {
  suppressTokens: [],
  badWords: new Int32Array(0),
  processedLogprobs: false,
});

export interface DrivenCoreOptions {
  readonly maxNumSeqs: number;
  readonly numBlocks: number;
  readonly maxNumBatchedTokens?: number;
  readonly blockSize?: number;
}

export interface PromptOptions {
  readonly numPromptTokens: number;
  readonly maxTokens: number;
  /** Prompts of one family and length are the same tokens. */
  readonly family: number;
}

export class DrivenCore {
  readonly #core: EngineCore;
  readonly #queued: { step: Int32Array; result: Int32Array }[] = [];
  #records: Float64Array = new Float64Array(0);
  #numSteps = 0;
  #numAdded = 0;

  constructor(options: DrivenCoreOptions) {
    const executable = {
      run: (step: Int32Array, result: Int32Array) => void this.#queued.push({ step, result }),
    };
    this.#core = new EngineCore(coreOptions(options), executable, (message) => {
      if (message.type === 'failed') throw new Error(message.error.message);
      if (message.type === 'outputs') this.#records = message.records;
    });
  }

  get stats(): CoreStats {
    return coreStatsOf(this.#records);
  }

  /** Sequences with a token in the step that is to be ended next. */
  get numLogitRows(): number {
    return this.#queued[0]?.step[numLogitRowsWord] ?? 0;
  }

  /** Sequences that run or wait, as of the last step. */
  get numLive(): number {
    return (this.#records[numRunningAt] ?? 0) + (this.#records[numWaitingAt] ?? 0);
  }

  get isBusy(): boolean {
    return this.#queued.length > 0;
  }

  /** Returns the id of its sequence. */
  add({ numPromptTokens, maxTokens, family }: PromptOptions): number {
    const firstSequenceId = ++this.#numAdded;
    const promptTokenIds = Int32Array.from(
      { length: numPromptTokens },
      (_, i) => (Math.imul(i + 1, 31) + Math.imul(family, 7919)) & 0x3fff,
    );
    const request: CoreRequest = {
      firstSequenceId,
      promptTokenIds,
      seed: 1n,
      n: 1,
      sampler,
      maxTokens,
      stopTokenIds: [2],
      priority: 0,
      cacheSalt: undefined,
      extraArgs: {},
    };
    this.#core.receive({ type: 'add', request });
    return firstSequenceId;
  }

  end(sequenceId: number): void {
    this.#core.receive({ type: 'end', sequenceIds: [sequenceId] });
  }

  /** Lets the core begin: it reads what was added in a turn of its own. */
  async start(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** Ends the oldest step in flight; the core reads its tokens and starts the next. */
  step(): void {
    const { step, result } = this.#queued.shift()!;
    const stepId = ++this.#numSteps;
    const numRows = step[numLogitRowsWord]!;
    const modesAt = step[rowModesWord]!;
    for (let row = 0; row < numRows; row++) {
      const samples = (step[modesAt + row]! & rowMode.sample) !== 0;
      result[resultHeaderWords + row] = samples ? 100 + ((stepId * 13 + row) % (vocabSize - 100)) : -1;
    }
    this.#core.stepDone(stepId);
  }
}

function coreOptions(options: DrivenCoreOptions): EngineCoreOptions {
  const { maxNumSeqs, numBlocks, maxNumBatchedTokens = 8192, blockSize = 16 } = options;
  return {
    scheduler: {
      maxNumSeqs,
      maxNumBatchedTokens,
      maxPromptTokensBesideDecodes: Infinity,
      enableChunkedPrefill: true,
      longPrefillTokenThreshold: 0,
      mixedPrefillDecode: true,
      maxResultWords: 1 << 24,
    },
    numBlocks,
    blockSize,
    watermarkBlocks: 0,
    maxModelLen: 4096,
    enablePrefixCaching: true,
    sharedPromptLength: Infinity,
    stepsInFlight: 2,
    maxUnreadOutputs: Infinity,
    tokenBuckets: [],
  };
}
