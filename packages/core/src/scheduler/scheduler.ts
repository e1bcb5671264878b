import type { KvCacheManager } from '../kv-cache/kv-cache-manager.js';
import type { ScheduledStep } from './scheduled-step.js';
import { compareSequences, type Sequence } from './sequence.js';
import { WaitingQueue } from './waiting-queue.js';

export interface SchedulerOptions {
  /** Sequences running, and so in a step, at most. */
  readonly maxNumSeqs: number;
  /** Tokens of a step at most. */
  readonly maxNumBatchedTokens: number;
  /** Tokens of prompts, at most, in a step that also brings answers their next tokens and does not complete all prompts. */
  readonly maxPromptTokensBesideDecodes: number;
  readonly enableChunkedPrefill: boolean;
  /** Tokens of one prompt in a step at most; 0: no limit. */
  readonly longPrefillTokenThreshold: number;
  /** Whether prompts and single tokens may share a step. */
  readonly mixedPrefillDecode: boolean;
  /** Words that a step's result may have: rows * (3 + 2 * top logprobs). */
  readonly maxResultWords: number;
}

export type EndReason = 'stop' | 'length';

/** Token counts since the start. */
export interface SchedulerCounters {
  numPreemptions: number;
  prefixCacheQueries: number;
  prefixCacheHits: number;
}

/** More requests than this without an answer, for each that has one, and prompts go first. */
const maxPromptsPerAnswer = 2;

/**
 * Decides what the next step computes. Pure decisions on integers: no backend, no tensor, no clock.
 *
 * There are no phases: each step brings sequences nearer to having all their tokens computed. Running sequences come
 * first, single tokens before prompts, which get less room beside them; when blocks run out, the last in order of service
 * is preempted, to be computed again later. Waiting ones are admitted in order of service if nothing was preempted and all their tokens fit.
 *
 * Steps are scheduled ahead: a token still being sampled is a pending -1, and a sequence that ends by count is left
 * out in time. One that ends by a stop token is computed for one step too many; that token is dropped.
 */
export class Scheduler {
  readonly counters: SchedulerCounters = { numPreemptions: 0, prefixCacheQueries: 0, prefixCacheHits: 0 };
  readonly #options: SchedulerOptions;
  readonly #kv: KvCacheManager;
  readonly #running: Sequence[] = [];
  readonly #waiting = new WaitingQueue();
  readonly #freeSlots: number[];
  readonly #prefills: Sequence[] = [];
  /** What runs, in order of service, from the first preemption of a step on; the last is preempted first. */
  readonly #victims: Sequence[] = [];
  #numHeld = 0;
  #preempted = false;
  #lastWasPrefill = false;
  /** Tokens of the step that is being scheduled, at most. */
  #maxTokens = 0;

  constructor(options: SchedulerOptions, kv: KvCacheManager) {
    this.#options = options;
    this.#kv = kv;
    this.#freeSlots = Array.from({ length: options.maxNumSeqs }, (_, i) => options.maxNumSeqs - 1 - i);
  }

  get numRunning(): number {
    return this.#running.length;
  }

  get numWaiting(): number {
    return this.#waiting.size + this.#numHeld;
  }

  /** Queues the sequences of one request; all but the first wait until its prompt is computed, to share its blocks. */
  add(group: readonly Sequence[]): void {
    const [leader, ...followers] = group;
    if (leader === undefined) return;
    if (leader.table.extraKey !== undefined) this.#hold(leader, followers);
    else for (const follower of followers) this.#waiting.push(follower);
    this.#waiting.push(leader);
  }

  /** Fills `step` with the next step; empty when there is nothing to compute now. */
  schedule(step: ScheduledStep): void {
    step.clear();
    this.#preempted = false;
    this.#victims.length = 0;
    this.#maxTokens = this.#options.maxNumBatchedTokens;
    if (this.#options.mixedPrefillDecode) {
      this.#scheduleDecodes(step);
      this.#limitPrompts(step);
      this.#schedulePrefills(step);
      this.#commit(step);
      this.#admit(step);
    } else this.#scheduleUnmixed(step);
  }

  /** A sampled token has arrived; says whether it ends the sequence, which then has no blocks any more. */
  receive(sequence: Sequence, tokenId: number): EndReason | undefined {
    sequence.resolvePending(tokenId);
    this.#cacheFullBlocks(sequence);
    const reason = endReason(sequence, tokenId);
    if (reason !== undefined) this.end(sequence);
    return reason;
  }

  /** Ends a sequence in whatever state; its blocks and its slot are free at once, also while a step in flight uses them. */
  end(sequence: Sequence): void {
    if (sequence.state === 'finished') return;
    if (sequence.state === 'running') this.#leaveRunning(sequence);
    else if (sequence.state === 'waiting') this.#waiting.remove(sequence);
    else this.#leaveLeader(sequence);
    sequence.state = 'finished';
    if (sequence.followers.length > 0) this.#promoteFollower(sequence);
  }

  /** Steps of prompts alternate with steps of single tokens, so that neither waits for ever. */
  #scheduleUnmixed(step: ScheduledStep): void {
    const decodesFirst = this.#lastWasPrefill;
    this.#lastWasPrefill = false;
    if (decodesFirst) this.#scheduleDecodes(step);
    if (step.numSeqs === 0) {
      this.#schedulePrefills(step);
      this.#commit(step);
      this.#admit(step);
      this.#lastWasPrefill = step.numSeqs > 0;
      if (this.#lastWasPrefill) return;
      this.#scheduleDecodes(step);
    }
    this.#commit(step);
  }

  #scheduleDecodes(step: ScheduledStep): void {
    for (let i = 0; i < this.#running.length; i++) {
      const sequence = this.#running[i]!;
      if (sequence.state !== 'running' || sequence.isAtMaxLength || sequence.numRemaining !== 1) continue;
      if (sequence.waitsForTokens && sequence.numPending > 0) continue;
      this.#scheduleRunning(step, sequence);
    }
    if (this.#preempted) this.#requeuePreempted(step);
  }

  /**
   * Answers wait for all of a step: beside them, prompts get little room, unless this step can end the wait, or many more
   * requests wait for their first token than for their next one. So far the step holds one token of each answer.
   */
  #limitPrompts({ numTokens }: ScheduledStep): void {
    const { maxPromptTokensBesideDecodes, enableChunkedPrefill } = this.#options;
    if (numTokens === 0 || maxPromptTokensBesideDecodes === Infinity || !enableChunkedPrefill) return;
    if (this.#countPrompts() > maxPromptsPerAnswer * numTokens) return;
    if (this.#countPromptTokens() <= this.#maxTokens - numTokens) return;
    this.#maxTokens = Math.min(this.#maxTokens, numTokens + maxPromptTokensBesideDecodes);
  }

  /** Requests without a token of their answer. */
  #countPrompts(): number {
    let count = this.#waiting.size;
    for (const { numRemaining } of this.#running) if (numRemaining > 1) count += 1;
    return count;
  }

  /** All that are left to compute. */
  #countPromptTokens(): number {
    let count = this.#waiting.numTokens;
    for (const { numRemaining } of this.#running) if (numRemaining > 1) count += numRemaining;
    return count;
  }

  #schedulePrefills(step: ScheduledStep): void {
    this.#prefills.length = 0;
    for (let i = 0; i < this.#running.length; i++) {
      if (this.#running[i]!.numRemaining > 1) this.#prefills.push(this.#running[i]!);
    }
    if (this.#prefills.length > 1) this.#prefills.sort(compareSequences);
    for (const sequence of this.#prefills) this.#scheduleRunning(step, sequence);
  }

  #scheduleRunning(step: ScheduledStep, sequence: Sequence): void {
    const count = this.#countFor(step, sequence);
    if (count === 0) return;
    while (!this.#kv.tryGrow(sequence.table, sequence.numComputedTokens + count)) {
      const victim = this.#lastInOrder();
      this.#preempt(victim);
      if (victim === sequence) return;
    }
    step.add(sequence, count);
  }

  /** Tokens of the sequence that the step can still take. */
  #countFor(step: ScheduledStep, sequence: Sequence): number {
    const { longPrefillTokenThreshold, mixedPrefillDecode } = this.#options;
    const remaining = sequence.numRemaining;
    let count = Math.min(remaining, this.#maxTokens - step.numTokens);
    if (longPrefillTokenThreshold > 0) count = Math.min(count, longPrefillTokenThreshold);
    if (sequence.maxTopLogprobs > 0 || step.maxTopLogprobs > 0)
      count = this.#limitByResult(step, sequence, count);
    return !mixedPrefillDecode && count === 1 && remaining > 1 ? 0 : count;
  }

  /** Each logit row of the step has room for the longest top list that any of its rows wants. */
  #limitByResult(step: ScheduledStep, sequence: Sequence, count: number): number {
    const rowWords = 3 + 2 * Math.max(step.maxTopLogprobs, sequence.maxTopLogprobs);
    const rows = Math.floor(this.#options.maxResultWords / rowWords) - step.numLogitRows;
    if (rows <= 0) return 0;
    return sequence.wantsPromptLogprobs ? Math.min(count, rows) : count;
  }

  /** Everything in the step is certain now: its tokens count as computed and its full blocks can be shared. */
  #commit(step: ScheduledStep): void {
    for (let i = 0; i < step.numSeqs; i++) this.#advance(step.sequences[i]!, step.counts[i]!);
  }

  #advance(sequence: Sequence, count: number): void {
    sequence.numComputedTokens += count;
    sequence.isFresh = false;
    if (sequence.wantsPromptLogprobs) {
      sequence.numScoredTokens = Math.max(sequence.numScoredTokens, sequence.numComputedTokens);
    }
    if (sequence.numRemaining === 0) sequence.appendPending();
    this.#cacheFullBlocks(sequence);
    if (sequence.followers.length > 0 && sequence.numComputedTokens >= sequence.numPromptTokens) {
      this.#releaseFollowers(sequence);
    }
  }

  #cacheFullBlocks(sequence: Sequence): void {
    const numTokens = Math.min(sequence.numComputedTokens, sequence.numKnownTokens);
    this.#kv.cacheFullBlocks(sequence.table, sequence.tokenIds, numTokens);
  }

  #admit(step: ScheduledStep): void {
    if (this.#preempted) return;
    while (step.numTokens < this.#maxTokens && this.#freeSlots.length > 0) {
      const sequence = this.#waiting.peek();
      // A preempted sequence goes on when the tokens it had in flight are known.
      if (sequence === undefined || sequence.numPending > 0) return;
      if (!this.#tryAdmit(step, sequence)) return;
    }
  }

  #tryAdmit(step: ScheduledStep, sequence: Sequence): boolean {
    const numCachedBlocks = this.#readsCache(sequence)
      ? this.#kv.countCachedBlocks(sequence.table, sequence.tokenIds, sequence.numTokens)
      : 0;
    sequence.numComputedTokens = numCachedBlocks * this.#kv.blockSize;
    const count = this.#countFor(step, sequence);
    const fits =
      this.#options.enableChunkedPrefill || sequence.numRemaining + step.numTokens <= this.#maxTokens;
    // Where prompts and single tokens don't mix, one whose prompt is cached runs from the next step of single tokens on.
    const startsLater = !this.#options.mixedPrefillDecode && sequence.numRemaining === 1;
    const admitted =
      fits &&
      count > 0 &&
      this.#kv.tryAdmit(sequence.table, numCachedBlocks, sequence.numTokens, this.#running.length > 0);
    if (!admitted) {
      sequence.numComputedTokens = 0;
      return false;
    }
    this.#waiting.remove(sequence);
    this.#enterRunning(sequence);
    this.#countHits(sequence);
    if (startsLater) return true;
    step.add(sequence, count);
    this.#advance(sequence, count);
    return true;
  }

  /** Prompt logprobs need the logits of every prompt token. */
  #readsCache(sequence: Sequence): boolean {
    return !sequence.wantsPromptLogprobs || sequence.numScoredTokens >= sequence.numPromptTokens - 1;
  }

  #countHits(sequence: Sequence): void {
    if (sequence.numCachedTokens !== undefined) return;
    sequence.numCachedTokens = sequence.numComputedTokens;
    if (sequence.table.extraKey === undefined || !this.#readsCache(sequence)) return;
    this.counters.prefixCacheQueries += sequence.numPromptTokens;
    this.counters.prefixCacheHits += sequence.numCachedTokens;
  }

  #enterRunning(sequence: Sequence): void {
    sequence.state = 'running';
    sequence.isFresh = true;
    sequence.slot = this.#freeSlots.pop()!;
    sequence.index = this.#running.length;
    this.#running.push(sequence);
  }

  #leaveRunning(sequence: Sequence): void {
    const last = this.#running.pop()!;
    if (last !== sequence) {
      this.#running[sequence.index] = last;
      last.index = sequence.index;
    }
    this.#freeSlots.push(sequence.slot);
    this.#kv.free(sequence.table);
  }

  /** Sorted once a step, as many may be preempted in it. */
  #lastInOrder(): Sequence {
    if (this.#victims.length === 0) {
      this.#victims.push(...this.#running);
      this.#victims.sort(compareSequences);
    }
    return this.#victims.pop()!;
  }

  /** Takes its blocks away; it stays in the running list until the pass over it is done. */
  #preempt(sequence: Sequence): void {
    sequence.state = 'waiting';
    sequence.numComputedTokens = 0;
    this.#kv.free(sequence.table);
    this.#freeSlots.push(sequence.slot);
    this.#preempted = true;
    this.counters.numPreemptions++;
  }

  #requeuePreempted(step: ScheduledStep): void {
    step.dropPreempted();
    let numKept = 0;
    for (const sequence of this.#running) {
      if (sequence.state !== 'running') this.#waiting.push(sequence);
      else {
        sequence.index = numKept;
        this.#running[numKept++] = sequence;
      }
    }
    this.#running.length = numKept;
  }

  #hold(leader: Sequence, followers: Sequence[]): void {
    leader.followers = followers;
    for (const follower of followers) {
      follower.state = 'held';
      follower.leader = leader;
    }
    this.#numHeld += followers.length;
  }

  #releaseFollowers(leader: Sequence): void {
    for (const follower of leader.followers) {
      follower.state = 'waiting';
      follower.leader = undefined;
      this.#waiting.push(follower);
    }
    this.#numHeld -= leader.followers.length;
    leader.followers = [];
  }

  #leaveLeader(follower: Sequence): void {
    const { followers } = follower.leader!;
    followers.splice(followers.lastIndexOf(follower), 1);
    this.#numHeld--;
  }

  /** A leader that ends before its prompt is computed leaves that to the next of its group. */
  #promoteFollower(leader: Sequence): void {
    const followers = leader.followers;
    leader.followers = [];
    this.#numHeld -= followers.length;
    const [next, ...others] = followers;
    next!.state = 'waiting';
    next!.leader = undefined;
    this.#hold(next!, others);
    this.#waiting.push(next!);
  }
}

function endReason(sequence: Sequence, tokenId: number): EndReason | undefined {
  const numKnownTokens = sequence.numKnownTokens;
  const numOutputTokens = numKnownTokens - sequence.numPromptTokens;
  if (numOutputTokens >= sequence.minTokens && sequence.stopTokens.has(tokenId)) return 'stop';
  return numKnownTokens === sequence.maxLength ? 'length' : undefined;
}
