import type { Sequence } from './sequence.js';

/**
 * What one step computes: for entry i, `counts[i]` tokens of `sequences[i]` from position `starts[i]` on. Kept until the
 * step's results are in, then reused. Arrays are [maxNumSeqs].
 */
export class ScheduledStep {
  readonly sequences: Sequence[] = [];
  readonly starts: Int32Array;
  readonly counts: Int32Array;
  /** 1: the last token's logits are sampled. */
  readonly samples: Uint8Array;
  /** Prompt tokens, from `scoreStarts[i]` on, whose successor's logprob is wanted. */
  readonly scoreStarts: Int32Array;
  readonly scoreCounts: Int32Array;
  /** 1: the sequence got its sampler slot in this step. */
  readonly fresh: Uint8Array;
  numSeqs = 0;
  numTokens = 0;
  numLogitRows = 0;
  maxTopLogprobs = 0;

  constructor(maxNumSeqs: number) {
    this.starts = new Int32Array(maxNumSeqs);
    this.counts = new Int32Array(maxNumSeqs);
    this.samples = new Uint8Array(maxNumSeqs);
    this.scoreStarts = new Int32Array(maxNumSeqs);
    this.scoreCounts = new Int32Array(maxNumSeqs);
    this.fresh = new Uint8Array(maxNumSeqs);
  }

  clear(): void {
    this.numSeqs = 0;
    this.numTokens = 0;
    this.numLogitRows = 0;
    this.maxTopLogprobs = 0;
  }

  /** Adds the next `count` tokens of a sequence. */
  add(sequence: Sequence, count: number): void {
    const entry = this.numSeqs++;
    const start = sequence.numComputedTokens;
    const scoreStart = Math.max(start, sequence.numScoredTokens);
    const samples = start + count === sequence.numTokens ? 1 : 0;
    this.sequences[entry] = sequence;
    this.starts[entry] = start;
    this.counts[entry] = count;
    this.samples[entry] = samples;
    this.scoreStarts[entry] = scoreStart;
    this.scoreCounts[entry] = numScored(sequence, scoreStart, start + count);
    this.fresh[entry] = sequence.isFresh ? 1 : 0;
    this.numTokens += count;
    this.numLogitRows += samples + this.scoreCounts[entry]!;
    if (this.scoreCounts[entry]! + samples > 0 && sequence.maxTopLogprobs > this.maxTopLogprobs) {
      this.maxTopLogprobs = sequence.maxTopLogprobs;
    }
  }

  /** Leaves out what was preempted after it had been added; the others keep their order. */
  dropPreempted(): void {
    const numEntries = this.numSeqs;
    this.clear();
    for (let i = 0; i < numEntries; i++) {
      const sequence = this.sequences[i]!;
      if (sequence.state === 'running') this.add(sequence, this.counts[i]!);
    }
  }
}

/** Positions of [start, end) that have a prompt token after them to score. */
function numScored(sequence: Sequence, start: number, end: number): number {
  if (!sequence.wantsPromptLogprobs) return 0;
  return Math.max(0, Math.min(end, sequence.numPromptTokens - 1) - start);
}
