/**
 * What a step brought, as one Float64Array for all its sequences: [the step's facts in the order of `stepFactNames`, gauges and
 * counters in the order of `coreStatNames`], then records:
 * started [1, sequenceId, scheduledMs, numCachedTokens];
 * token [2, sequenceId, tokenId, end (index in `endReasons`), numLogprobs, (tokenId, logprob, rank)…];
 * score [3, sequenceId, position of the prompt token, numLogprobs, (tokenId, logprob, rank)…].
 */
import type { EndReason } from '../scheduler/scheduler.js';
import type { Logprob } from './types.js';

export const stepFactNames = ['numTokens', 'numSeqs', 'computeMicros', 'idleMicros'] as const;
/** Of no step: zeros. */
export type StepFacts = Record<(typeof stepFactNames)[number], number>;

export const coreStatNames = [
  'numRunning', 'numWaiting', 'numFreeBlocks', 'numUsedBlocks', 'numPreemptionsTotal', 'numPreemptedEndsTotal',
  'prefixCacheQueriesTotal', 'prefixCacheHitsTotal', 'numStepsTotal', 'numStepsInFlight',
] as const; // prettier-ignore
export type CoreStats = Record<(typeof coreStatNames)[number], number>;

/** Of a core that has done nothing yet. */
export function idleCoreStats(numBlocks: number): CoreStats {
  const zeros = Object.fromEntries(coreStatNames.map((name) => [name, 0])) as CoreStats;
  return { ...zeros, numFreeBlocks: numBlocks };
}

const totalNames = coreStatNames.filter((name) => name.endsWith('Total'));

/** The gauges of `now`, and the counters of both. */
export function addTotals(now: CoreStats, past: CoreStats): CoreStats {
  return { ...now, ...Object.fromEntries(totalNames.map((name) => [name, now[name] + past[name]])) };
}

const statsAt = stepFactNames.length;
const headerLength = statsAt + coreStatNames.length;
const endReasons: readonly (EndReason | undefined)[] = [undefined, 'stop', 'length'];
const kinds = { started: 1, token: 2, score: 3 } as const;

/** Collects records in one growing array. */
export class OutputEncoder {
  #values = new Float64Array(1024);
  #length = headerLength;

  get isEmpty(): boolean {
    return this.#length === headerLength;
  }

  started(sequenceId: number, scheduledMs: number, numCachedTokens: number): void {
    this.#append(kinds.started, sequenceId, scheduledMs, numCachedTokens);
  }

  token(sequenceId: number, tokenId: number, end: EndReason | undefined, numLogprobs: number): void {
    this.#append(kinds.token, sequenceId, tokenId, endReasons.indexOf(end));
    this.#reserve(1);
    this.#values[this.#length++] = numLogprobs;
  }

  score(sequenceId: number, position: number, numLogprobs: number): void {
    this.#append(kinds.score, sequenceId, position, numLogprobs);
  }

  /** One of the entries announced by `token` or `score`. */
  logprob(tokenId: number, logprob: number, rank: number): void {
    this.#reserve(3);
    this.#values[this.#length++] = tokenId;
    this.#values[this.#length++] = logprob;
    this.#values[this.#length++] = rank;
  }

  /** The message, as an array of its own; the encoder starts afresh. */
  finish(step: StepFacts | undefined, stats: CoreStats): Float64Array {
    for (let i = 0; i < statsAt; i++) this.#values[i] = step?.[stepFactNames[i]!] ?? 0;
    for (let i = 0; i < coreStatNames.length; i++) this.#values[statsAt + i] = stats[coreStatNames[i]!];
    const message = this.#values.slice(0, this.#length);
    this.#length = headerLength;
    return message;
  }

  #append(a: number, b: number, c: number, d: number): void {
    this.#reserve(4);
    this.#values[this.#length++] = a;
    this.#values[this.#length++] = b;
    this.#values[this.#length++] = c;
    this.#values[this.#length++] = d;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#values.length) return;
    const grown = new Float64Array(2 * this.#values.length + count);
    grown.set(this.#values.subarray(0, this.#length));
    this.#values = grown;
  }
}

export interface OutputVisitor {
  started(sequenceId: number, scheduledMs: number, numCachedTokens: number): void;
  token(
    sequenceId: number,
    tokenId: number,
    end: EndReason | undefined,
    logprobs: Logprob[] | undefined,
  ): void;
  score(sequenceId: number, position: number, logprobs: Logprob[]): void;
}

export const numScheduledTokensOf = (message: Float64Array): number => message[0]!;

export function stepFactsOf(message: Float64Array): StepFacts {
  return Object.fromEntries(stepFactNames.map((name, i) => [name, message[i]!])) as StepFacts;
}

export function coreStatsOf(message: Float64Array): CoreStats {
  return Object.fromEntries(coreStatNames.map((name, i) => [name, message[statsAt + i]!])) as CoreStats;
}

/** Calls the visitor for every record, in order. */
export function visitOutputs(message: Float64Array, visitor: OutputVisitor): void {
  let at = headerLength;
  while (at < message.length) {
    const kind = message[at]!;
    const sequenceId = message[at + 1]!;
    if (kind === kinds.started) {
      visitor.started(sequenceId, message[at + 2]!, message[at + 3]!);
      at += 4;
    } else if (kind === kinds.token) {
      const numLogprobs = message[at + 4]!;
      const logprobs = numLogprobs > 0 ? logprobsAt(message, at + 5, numLogprobs) : undefined;
      visitor.token(sequenceId, message[at + 2]!, endReasons[message[at + 3]!], logprobs);
      at += 5 + 3 * numLogprobs;
    } else {
      const numLogprobs = message[at + 3]!;
      visitor.score(sequenceId, message[at + 2]!, logprobsAt(message, at + 4, numLogprobs));
      at += 4 + 3 * numLogprobs;
    }
  }
}

function logprobsAt(message: Float64Array, start: number, count: number): Logprob[] {
  return Array.from({ length: count }, (_, i) => {
    const at = start + 3 * i;
    return { tokenId: message[at]!, logprob: message[at + 1]!, rank: message[at + 2]! };
  });
}
