/** Splits and pads steps as the backend's SchedulingConstraints ask for, and sizes plans within them. */
import type { PlanLimits, SchedulingConstraints } from '../backend/index.js';
import { padSeqCount, padTokenCount } from '../program/bucketing.js';
import { skip } from './case.js';
import type { PlainSequence, PlainStep } from './plain-step.js';

export type LegalStep = Omit<PlainStep, 'stepId'>;

export interface WantedSizes {
  /** Tokens of the largest step. */
  readonly tokens: number;
  readonly seqs: number;
  /** Tokens of the longest sequence. */
  readonly length: number;
  /** Sequences that hold blocks of the cache at the same time; by default `seqs`. */
  readonly heldSeqs?: number;
  /** Wanted block size; the preferred one if absent. */
  readonly blockSize?: number;
}

/** Limits of a plan that holds steps of these sizes, in blocks as the device wants them. */
export function limitsFor(
  constraints: SchedulingConstraints,
  wanted: WantedSizes,
  vocabSize: number,
): PlanLimits {
  const { tokenBuckets, decodeBuckets = [], maxTokens = Infinity, maxSeqs = Infinity } = constraints;
  const seqs = padTo(decodeBuckets, Math.min(wanted.seqs, maxSeqs, decodeBuckets.at(-1) ?? Infinity));
  const tokens = padTo(tokenBuckets, Math.min(wanted.tokens, maxTokens, tokenBuckets.at(-1) ?? Infinity));
  const unit = wanted.blockSize ?? constraints.blockSizes[0]!;
  const isSlots = constraints.kvLayout === 'slots';
  const blockSize = isSlots ? Math.ceil(wanted.length / unit) * unit : unit;
  const perSeq = Math.ceil(wanted.length / blockSize);
  return {
    maxTokens: Math.max(tokens, seqs),
    maxSeqs: seqs,
    maxLogitRows: Math.max(tokens, seqs),
    maxModelLen: wanted.length,
    blockSize,
    numBlocks: perSeq * (wanted.heldSeqs ?? wanted.seqs) + 2,
    vocabSize,
  };
}

const padTo = (buckets: readonly number[], count: number): number =>
  buckets.find((bucket) => bucket >= count) ?? buckets.at(-1) ?? count;

/** The step as one or several that the backend takes, in the order of their sequences. */
export function legalSteps(
  sequences: readonly PlainSequence[],
  constraints: SchedulingConstraints,
  { blockSize, maxSeqs, maxTokens, maxModelLen }: PlanLimits,
): LegalStep[] {
  if (constraints.chunkedPrefill === false) requireWholePrompts(sequences);
  const stride = Math.ceil(maxModelLen / blockSize);
  const groups = constraints.mixedPrefillDecode ? [sequences] : separate(sequences);
  const limits = { maxSeqs: Math.min(maxSeqs, constraints.maxSeqs ?? maxSeqs), maxTokens };
  return groups
    .flatMap((group) => splitBySize(group, limits))
    .map((group) => padded({ blockSize, sequences: group, stride }, constraints));
}

/** With token rows, and for a step of single tokens sequences and logit rows, up to the next bucket. */
function padded(step: LegalStep, { decodeBuckets = [], tokenBuckets }: SchedulingConstraints): LegalStep {
  const { sequences } = step;
  const isDecode = sequences.every(({ tokens }) => tokens.length === 1);
  if (!isDecode || decodeBuckets.length === 0)
    return { ...step, numTokens: padTokenCount(tokensOf(sequences), tokenBuckets) };
  const silent = [{ token: 0, mode: 0, numLogprobs: -1 }];
  const withRows = sequences.map((sequence) =>
    sequence.rows.length > 0 ? sequence : { ...sequence, rows: silent },
  );
  return { ...step, sequences: withRows, numSeqs: padSeqCount(sequences.length, decodeBuckets) };
}

const tokensOf = (sequences: readonly PlainSequence[]): number =>
  sequences.reduce((sum, { tokens }) => sum + tokens.length, 0);

const separate = (sequences: readonly PlainSequence[]): PlainSequence[][] =>
  [
    sequences.filter(({ tokens }) => tokens.length > 1),
    sequences.filter(({ tokens }) => tokens.length === 1),
  ].filter((group) => group.length > 0);

function splitBySize(
  sequences: readonly PlainSequence[],
  { maxSeqs, maxTokens }: { readonly maxSeqs: number; readonly maxTokens: number },
): PlainSequence[][] {
  const groups: PlainSequence[][] = [];
  for (const sequence of sequences) {
    if (sequence.tokens.length > maxTokens)
      skip(`a prompt of ${sequence.tokens.length} tokens; the device's steps have ${maxTokens} at most`);
    const last = groups.at(-1);
    const fits =
      last !== undefined && last.length < maxSeqs && tokensOf(last) + sequence.tokens.length <= maxTokens;
    if (fits) last.push(sequence);
    else groups.push([sequence]);
  }
  return groups;
}

function requireWholePrompts(sequences: readonly PlainSequence[]): void {
  const isPart = ({ start, tokens, promptLen }: PlainSequence): boolean =>
    start < promptLen && (start > 0 || tokens.length < promptLen);
  if (sequences.some(isPart)) skip('the device reads prompts whole (chunkedPrefill: false)');
}
