import type { BackendFailure, Executable } from '../backend/index.js';
import type { CaptureKeys } from '../batch/capture-keys.js';
import { StepResult } from '../batch/step-result.js';
import { StepWriter, type StepWriterOptions } from '../batch/step-writer.js';
import { asTenonError, invariant, TenonError } from '../errors.js';
import { KvCacheManager } from '../kv-cache/kv-cache-manager.js';
import { withSeed, type SamplerRow } from '../sampling/sampler-row.js';
import { ScheduledStep } from '../scheduler/scheduled-step.js';
import { Scheduler, type SchedulerOptions } from '../scheduler/scheduler.js';
import { Sequence } from '../scheduler/sequence.js';
import { monotonicMs } from './clock.js';
import type { CoreRequest, FromCore, ToCore } from './core-messages.js';
import type { LogitsProcessors, SequenceProcessors } from './logits-processors.js';
import { OutputEncoder, type StepFacts } from './output-records.js';

export interface EngineCoreOptions {
  readonly scheduler: SchedulerOptions;
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly watermarkBlocks: number;
  readonly maxModelLen: number;
  readonly enablePrefixCaching: boolean;
  /** Longer prompts share blocks only with prompts of the same length. */
  readonly sharedPromptLength: number;
  readonly stepsInFlight: number;
  /** Messages of outputs that the front end may not have read yet when a step starts. */
  readonly maxUnreadOutputs: number;
  /** Tell the front end of sequences before their first step, not after it. */
  readonly reportsBegun?: boolean;
  readonly tokenBuckets: readonly number[];
  readonly logitsProcessors?: LogitsProcessors | undefined;
  readonly decodeBuckets?: readonly number[];
  /** Steps whose shape recurs bear a key of it; absent: none do. */
  readonly captureKeys?: CaptureKeys;
  /** Every prompt is computed from its first token on: nothing computed for another may stand in. */
  readonly wholePrompts?: boolean;
}

export function stepWriterOptions({
  scheduler,
  tokenBuckets,
  decodeBuckets,
  captureKeys,
  blockSize,
  maxModelLen,
}: EngineCoreOptions): StepWriterOptions {
  const { maxNumSeqs, maxNumBatchedTokens } = scheduler;
  const maxBlocksPerSeq = Math.ceil(maxModelLen / blockSize);
  return {
    maxNumSeqs,
    maxNumBatchedTokens,
    tokenBuckets,
    decodeBuckets,
    captureKeys,
    blockSize,
    maxBlocksPerSeq,
  };
}

/** A place for one step in flight. */
interface Lane {
  readonly step: ScheduledStep;
  readonly writer: StepWriter;
  readonly result: StepResult;
  stepId: number;
  /** There was nothing to compute before it. */
  isAfterRest: boolean;
}

/**
 * The engine loop. It is driven by events, not by time: requests coming in and steps ending each make it enqueue as many
 * steps as may be in flight, so the next step is ready before the last one ends; with nothing to compute it sleeps.
 * Everything a step brought leaves in one message.
 */
export class EngineCore {
  readonly #options: EngineCoreOptions;
  readonly #executable: Pick<Executable, 'run'>;
  readonly #send: (message: FromCore) => void;
  readonly #kv: KvCacheManager;
  readonly #scheduler: Scheduler;
  readonly #sequences = new Map<number, Sequence>();
  /** Of sequences that have logits processors, and how they are sampled without. */
  readonly #processed = new WeakMap<Sequence, { processors: SequenceProcessors; row: SamplerRow }>();
  /** Used in turn: the steps in flight are `#numInFlight` lanes from `#oldest` on. */
  readonly #lanes: readonly Lane[];
  readonly #encoder = new OutputEncoder();
  #oldest = 0;
  #numInFlight = 0;
  #numUnreadOutputs = 0;
  #numSteps = 0;
  #isResting = true;
  #numPreemptedEnds = 0;
  #isWakeUpDue = false;
  #isPumping = false;
  #dead: TenonError | undefined = undefined;
  #isClosed = false;
  #isAbandoned = false;
  #onDrained: (() => void) | undefined = undefined;

  constructor(
    options: EngineCoreOptions,
    executable: Pick<Executable, 'run'>,
    send: (message: FromCore) => void,
  ) {
    this.#options = options;
    this.#executable = executable;
    this.#send = send;
    this.#kv = new KvCacheManager(options);
    this.#scheduler = new Scheduler(options.scheduler, this.#kv);
    const writerOptions = stepWriterOptions(options);
    this.#lanes = Array.from({ length: options.stepsInFlight }, () => ({
      step: new ScheduledStep(options.scheduler.maxNumSeqs),
      writer: new StepWriter(writerOptions),
      result: new StepResult(),
      stepId: 0,
      isAfterRest: true,
    }));
  }

  receive(message: ToCore): void {
    if (message.type === 'add') this.#add(message.request);
    else if (message.type === 'end') this.#end(message.sequenceIds);
    else if (message.type === 'read') this.#noteRead(message.count);
    else if (message.type === 'vocabulary') this.#options.logitsProcessors?.setVocabulary(message.vocabulary);
    else if (message.type === 'reset-prefix-cache') {
      this.#kv.resetPrefixCache();
      this.#send({ type: 'prefix-cache-reset', ticket: message.ticket });
    }
  }

  /** Starts no more steps; resolves when those in flight have ended. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#numInFlight > 0 && !this.#isAbandoned)
      await new Promise<void>((resolve) => (this.#onDrained = resolve));
  }

  /** Computes no more, and waits no longer for the steps in flight. */
  abandon(): void {
    this.#isClosed = true;
    this.#isAbandoned = true;
    this.#onDrained?.();
  }

  /** The backend's word that the oldest step in flight has ended. */
  stepDone(stepId: number, error?: BackendFailure): void {
    this.#guard(() => {
      const lane = this.#lanes[this.#oldest]!;
      invariant(this.#numInFlight > 0 && lane.stepId === stepId, `step ${stepId} ended out of order`);
      this.#oldest = (this.#oldest + 1) % this.#lanes.length;
      this.#numInFlight--;
      if (error === undefined) this.#collect(lane);
      else this.#failStep(error);
      const facts = factsOf(lane);
      this.#pump();
      this.#isResting = this.#numInFlight === 0;
      this.#flush(facts);
      if (this.#numInFlight === 0) this.#onDrained?.();
    });
  }

  #add(request: CoreRequest): void {
    const sequenceIds = Array.from({ length: request.n }, (_, i) => request.firstSequenceId + i);
    if (this.#dead !== undefined) {
      this.#fail(this.#dead, sequenceIds);
      return;
    }
    let processors: ReturnType<LogitsProcessors['start']> | undefined;
    try {
      processors = this.#options.logitsProcessors?.start(request);
    } catch (error) {
      this.#fail(asTenonError(error), sequenceIds);
      return;
    }
    const group = this.#makeSequences(request, processors ?? []);
    for (const sequence of group) this.#sequences.set(sequence.id, sequence);
    this.#scheduler.add(group);
    this.#wakeUp();
  }

  #makeSequences(request: CoreRequest, processors: readonly (SequenceProcessors | undefined)[]): Sequence[] {
    const stopTokens = new Set(request.stopTokenIds);
    const { sampler } = request;
    return Array.from({ length: request.n }, (_, i) => {
      const wantsPromptLogprobs = i === 0 && sampler.numPromptLogprobs >= 0;
      const row = withSeed(sampler, request.seed, i);
      const sequence = new Sequence({
        id: request.firstSequenceId + i,
        promptTokenIds: request.promptTokenIds,
        maxTokens: request.maxTokens,
        maxModelLen: this.#options.maxModelLen,
        priority: request.priority,
        extraKey: this.#extraKey(request),
        stopTokens,
        minTokens: sampler.minTokens,
        maxTopLogprobs: Math.max(0, sampler.numLogprobs, wantsPromptLogprobs ? sampler.numPromptLogprobs : 0),
        wantsPromptLogprobs,
        waitsForTokens: processors[i] !== undefined,
        sampler: row,
      });
      if (processors[i] !== undefined) this.#processed.set(sequence, { processors: processors[i], row });
      return sequence;
    });
  }

  /** Without prefix caching, the sequences of one request still share their prompt, under a key of their own. */
  #extraKey({ cacheSalt, n, firstSequenceId, promptTokenIds }: CoreRequest): string | undefined {
    if (this.#options.wholePrompts === true) return undefined;
    if (!this.#options.enablePrefixCaching) return n > 1 ? `request:${firstSequenceId}` : undefined;
    const length =
      promptTokenIds.length > this.#options.sharedPromptLength ? `length:${promptTokenIds.length};` : '';
    return cacheSalt === undefined ? length : `${length}salt:${cacheSalt}`;
  }

  /** In reverse, so that followers leave their leader from the end of its list. */
  #end(sequenceIds: readonly number[]): void {
    for (let i = sequenceIds.length - 1; i >= 0; i--) {
      const sequence = this.#sequences.get(sequenceIds[i]!);
      if (sequence === undefined) continue;
      if (sequence.state === 'waiting' && sequence.hasStarted) this.#numPreemptedEnds++;
      this.#sequences.delete(sequence.id);
      this.#scheduler.end(sequence);
    }
    this.#wakeUp();
  }

  /** Enqueues steps once all messages that are already here have been read. */
  #wakeUp(): void {
    if (this.#isWakeUpDue) return;
    this.#isWakeUpDue = true;
    setImmediate(() => {
      this.#isWakeUpDue = false;
      this.#guard(() => {
        this.#pump();
        if (this.#numInFlight === 0) this.#flush();
      });
    });
  }

  /** A front end that cannot keep up holds the core back; else outputs would pile up, and it would do nothing but read them. */
  #noteRead(count: number): void {
    const wasHeld = this.#isHeld;
    this.#numUnreadOutputs -= count;
    if (wasHeld) this.#guard(() => this.#pump());
  }

  get #isHeld(): boolean {
    return this.#numUnreadOutputs >= this.#options.maxUnreadOutputs;
  }

  #pump(): void {
    if (this.#isPumping || this.#dead !== undefined || this.#isClosed) return;
    this.#isPumping = true;
    while (this.#numInFlight < this.#lanes.length && !this.#isHeld && this.#tryStartStep());
    this.#isPumping = false;
  }

  #tryStartStep(): boolean {
    const lane = this.#lanes[(this.#oldest + this.#numInFlight) % this.#lanes.length]!;
    this.#scheduler.schedule(lane.step);
    if (lane.step.numSeqs === 0) {
      const isStuck = this.#numInFlight === 0 && this.#scheduler.numRunning + this.#scheduler.numWaiting > 0;
      invariant(!isStuck, 'there are requests, but none can be scheduled');
      return false;
    }
    lane.stepId = ++this.#numSteps;
    lane.isAfterRest = this.#isResting;
    this.#isResting = false;
    const failures = this.#options.logitsProcessors === undefined ? [] : this.#processLogits(lane.step);
    const words = lane.writer.write(lane.step, lane.stepId);
    const result = lane.result.prepare(lane.writer.numLogitRows, lane.step.maxTopLogprobs);
    this.#reportStarted(lane.step);
    for (const { sequence, error } of failures) this.#failSequence(sequence, error);
    this.#numInFlight++;
    this.#executable.run(words, result);
    return true;
  }

  /** Asks the logits processors of what the step samples. Sequences whose processors fail are to be ended; the step is right without. */
  #processLogits(step: ScheduledStep): { sequence: Sequence; error: TenonError }[] {
    const failures: { sequence: Sequence; error: TenonError }[] = [];
    for (let i = 0; i < step.numSeqs; i++) {
      const sequence = step.sequences[i]!;
      if (!sequence.waitsForTokens || step.samples[i] !== 1) continue;
      const processed = this.#processed.get(sequence)!;
      const numTokens = step.starts[i]! + step.counts[i]!;
      try {
        sequence.sampler = processed.processors.nextRow(processed.row, sequence.tokenIds, numTokens);
      } catch (error) {
        sequence.sampler = processed.row;
        failures.push({ sequence, error: asTenonError(error) });
      }
    }
    return failures;
  }

  #failSequence(sequence: Sequence, error: TenonError): void {
    this.#drop([sequence]);
    this.#fail(error, [sequence.id]);
  }

  #reportStarted(step: ScheduledStep): void {
    const begun: number[] = [];
    for (let i = 0; i < step.numSeqs; i++) {
      const sequence = step.sequences[i]!;
      if (step.fresh[i] !== 1 || sequence.hasStarted) continue;
      sequence.hasStarted = true;
      this.#encoder.started(sequence.id, monotonicMs(), sequence.numCachedTokens!);
      if (this.#options.reportsBegun === true) begun.push(sequence.id);
    }
    if (begun.length > 0) this.#send({ type: 'begun', sequenceIds: begun });
  }

  #collect({ step, result }: Lane): void {
    let row = 0;
    for (let i = 0; i < step.numSeqs; i++) {
      const sequence = step.sequences[i]!;
      const isWanted = sequence.state !== 'finished';
      for (let j = 0; j < step.scoreCounts[i]!; j++, row++) {
        if (isWanted) this.#collectScore(sequence, step.scoreStarts[i]! + j + 1, result, row);
      }
      if (step.samples[i] !== 1) continue;
      if (isWanted) this.#collectToken(sequence, result, row);
      row++;
    }
  }

  #collectScore(sequence: Sequence, position: number, result: StepResult, row: number): void {
    const numTop = sequence.sampler.numPromptLogprobs;
    this.#encoder.score(sequence.id, position, 1 + numTop);
    this.#encodeLogprobs(sequence.tokenIds[position]!, result, row, numTop);
  }

  #collectToken(sequence: Sequence, result: StepResult, row: number): void {
    const tokenId = result.token(row);
    invariant(tokenId >= 0, `the backend sampled no token in row ${row}`);
    const end = this.#scheduler.receive(sequence, tokenId);
    if (end !== undefined) this.#sequences.delete(sequence.id);
    const numTop = sequence.sampler.numLogprobs;
    this.#encoder.token(sequence.id, tokenId, end, numTop < 0 ? 0 : 1 + numTop);
    if (numTop >= 0) this.#encodeLogprobs(tokenId, result, row, numTop);
  }

  #encodeLogprobs(tokenId: number, result: StepResult, row: number, numTop: number): void {
    this.#encoder.logprob(tokenId, result.logprob(row), result.rank(row));
    for (let k = 0; k < numTop; k++)
      this.#encoder.logprob(result.topId(row, k), result.topLogprob(row, k), k + 1);
  }

  #flush(step?: StepFacts): void {
    const { counters } = this.#scheduler;
    const records = this.#encoder.finish(step, {
      numRunning: this.#scheduler.numRunning,
      numWaiting: this.#scheduler.numWaiting,
      numFreeBlocks: this.#kv.numFreeBlocks,
      numUsedBlocks: this.#kv.numUsedBlocks,
      numPreemptionsTotal: counters.numPreemptions,
      numPreemptedEndsTotal: this.#numPreemptedEnds,
      prefixCacheQueriesTotal: counters.prefixCacheQueries,
      prefixCacheHitsTotal: counters.prefixCacheHits,
      numStepsTotal: this.#numSteps,
      numStepsInFlight: this.#numInFlight,
    });
    this.#numUnreadOutputs++;
    this.#send({ type: 'outputs', records });
  }

  /** Fails what the step could have touched: all that run or have tokens in flight. After a lost device, everything. */
  #failStep(failure: BackendFailure): void {
    const error = new TenonError(failure.code, failure.message);
    if (failure.code === 'backend.device-lost') {
      this.#die(error);
      this.abandon();
      return;
    }
    const touched = [...this.#sequences.values()].filter(
      ({ state, numPending }) => state === 'running' || numPending > 0,
    );
    this.#drop(touched);
    this.#kv.resetPrefixCache();
    this.#fail(error, touched.map((sequence) => sequence.id)); // prettier-ignore
  }

  /** Takes no more requests, and fails those there are. */
  #die(error: TenonError): void {
    this.#dead = error;
    const all = [...this.#sequences.values()];
    this.#drop(all);
    this.#fail(error, all.map((sequence) => sequence.id)); // prettier-ignore
  }

  #drop(sequences: readonly Sequence[]): void {
    for (const sequence of sequences.toReversed()) {
      this.#sequences.delete(sequence.id);
      this.#scheduler.end(sequence);
    }
  }

  #fail(error: TenonError, sequenceIds: readonly number[]): void {
    this.#send({ type: 'failed', error: error.toJSON(), sequenceIds, fatal: this.#dead !== undefined });
  }

  /** A bug in here must end requests, not leave them waiting. */
  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#isPumping = false;
      if (this.#dead === undefined) this.#die(asTenonError(error));
    }
  }
}

function factsOf({ step, result, isAfterRest }: Lane): StepFacts {
  return {
    numTokens: step.numTokens,
    numSeqs: step.numSeqs,
    computeMicros: result.computeTimeUs,
    idleMicros: isAfterRest ? 0 : result.idleTimeUs,
  };
}
