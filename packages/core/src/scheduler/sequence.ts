import { BlockTable } from '../kv-cache/block-table.js';
import type { SamplerRow } from '../sampling/sampler-row.js';

/** held: waits for its group's leader to have computed the prompt; finished: its blocks are free, late tokens are dropped. */
export type SequenceState = 'held' | 'waiting' | 'running' | 'finished';

export interface SequenceOptions {
  readonly id: number;
  readonly promptTokenIds: Int32Array;
  /** Output tokens at most. */
  readonly maxTokens: number;
  readonly maxModelLen: number;
  /** Lower runs first. */
  readonly priority: number;
  /** Goes into the first block's digest; undefined: no prefix caching. */
  readonly extraKey: string | undefined;
  /** Tokens that end the sequence. */
  readonly stopTokens: ReadonlySet<number>;
  /** Output tokens before a stop token counts. */
  readonly minTokens: number;
  /** Entries of the top list of its sampled and prompt tokens; 0 if none. */
  readonly maxTopLogprobs: number;
  readonly wantsPromptLogprobs: boolean;
  /** How its next token is sampled depends on the last one: it is in no step while it has pending tokens. */
  readonly waitsForTokens?: boolean;
  /** For the step; the scheduler doesn't look at it. */
  readonly sampler: SamplerRow;
}

/**
 * One growing list of tokens, and how far it is computed.
 *
 * `tokenIds[0, numTokens)` is the prompt, then the output; its last `numPending` entries are -1: sampled by steps still
 * in flight. `numComputedTokens` counts the tokens that were scheduled, so the step that runs them is at least enqueued.
 */
export class Sequence {
  readonly id: number;
  readonly numPromptTokens: number;
  /** Tokens at which it ends by length. */
  readonly maxLength: number;
  readonly priority: number;
  readonly stopTokens: ReadonlySet<number>;
  readonly minTokens: number;
  readonly maxTopLogprobs: number;
  readonly wantsPromptLogprobs: boolean;
  readonly waitsForTokens: boolean;
  /** Of its next token. */
  sampler: SamplerRow;
  readonly table: BlockTable;

  tokenIds: Int32Array;
  numTokens: number;
  numPending = 0;
  numComputedTokens = 0;
  /** Prompt tokens whose logprobs have been asked for. */
  numScoredTokens = 0;
  /** Tokens found in the prefix cache when it was first admitted; undefined until then. */
  numCachedTokens: number | undefined = undefined;

  state: SequenceState = 'waiting';
  /** It has been in a step, ever. */
  hasStarted = false;
  /** Sampler slot, while running. */
  slot = 0;
  /** Its slot is new: no step with it has been scheduled yet. */
  isFresh = false;
  /** Place in the scheduler's running list or in the waiting queue. */
  index = 0;
  /** The sequence whose prompt this one waits for, and those that wait for this one's. */
  leader: Sequence | undefined = undefined;
  followers: Sequence[] = [];

  constructor(options: SequenceOptions) {
    const numPromptTokens = options.promptTokenIds.length;
    this.id = options.id;
    this.numPromptTokens = numPromptTokens;
    this.maxLength = Math.min(numPromptTokens + options.maxTokens, options.maxModelLen);
    this.priority = options.priority;
    this.stopTokens = options.stopTokens;
    this.minTokens = options.minTokens;
    this.maxTopLogprobs = options.maxTopLogprobs;
    this.wantsPromptLogprobs = options.wantsPromptLogprobs;
    this.waitsForTokens = options.waitsForTokens ?? false;
    this.sampler = options.sampler;
    this.table = new BlockTable(options.extraKey);
    this.tokenIds = new Int32Array(Math.min(this.maxLength, numPromptTokens + 256));
    this.tokenIds.set(options.promptTokenIds);
    this.numTokens = numPromptTokens;
  }

  get numKnownTokens(): number {
    return this.numTokens - this.numPending;
  }

  /** Tokens that are not scheduled yet. */
  get numRemaining(): number {
    return this.numTokens - this.numComputedTokens;
  }

  /** Every token it may have is at least in flight. */
  get isAtMaxLength(): boolean {
    return this.numTokens === this.maxLength;
  }

  /** Makes room for the token that a step will sample. */
  appendPending(): void {
    if (this.numTokens === this.tokenIds.length) {
      const grown = new Int32Array(Math.min(2 * this.tokenIds.length, this.maxLength));
      grown.set(this.tokenIds);
      this.tokenIds = grown;
    }
    this.tokenIds[this.numTokens++] = -1;
    this.numPending++;
  }

  /** The oldest pending token has arrived. */
  resolvePending(tokenId: number): void {
    this.tokenIds[this.numTokens - this.numPending] = tokenId;
    this.numPending--;
  }
}

/** Order of service: by priority, then by arrival. */
export const compareSequences = (a: Sequence, b: Sequence): number => a.priority - b.priority || a.id - b.id;
