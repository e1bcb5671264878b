/** Steps written the plain way: one object per sequence, every region laid out anew. */
import {
  rowMode, stepHeader, stepHeaderWords, stepMagic, stepRegionNames, stepRegions, stepVersion, type StepHeaderField,
  type StepRegion,
} from '../backend/index.js'; // prettier-ignore

/** A logit row; `token` counts from the sequence's first token of this step. */
export interface PlainRow {
  readonly token: number;
  /** Bits of rowMode; greedy sampling if absent. */
  readonly mode?: number;
  readonly target?: number;
  readonly numLogprobs?: number;
  readonly seed?: bigint;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly repetitionPenalty?: number;
  readonly suppress?: readonly number[];
  readonly allowed?: readonly number[];
  readonly bias?: readonly (readonly [number, number])[];
  readonly badWords?: readonly (readonly number[])[];
}

export interface PlainSequence {
  readonly slot: number;
  /** Tokens of this step; -1: the slot's last sampled one. */
  readonly tokens: readonly number[];
  /** Position of the first of them. */
  readonly start: number;
  readonly promptLen: number;
  readonly blocks: readonly number[];
  readonly rows: readonly PlainRow[];
  readonly history?: readonly number[];
  /** Its keys and values go nowhere. */
  readonly isPadding?: boolean;
}

export interface PlainStep {
  readonly stepId: number;
  readonly blockSize: number;
  readonly sequences: readonly PlainSequence[];
  /** Total token rows, with padding. */
  readonly numTokens?: number;
  /** A step of single tokens only: sequences, each with a token and a logit row, after padding to a bucket. */
  readonly numSeqs?: number;
  /** Blocks per row of blockTables; by default those of the longest table. */
  readonly stride?: number;
}

/** Says which shapes recur: the step's `captureKey`, by a text that is equal for steps of one shape. */
export type KeyOfShape = (shape: string) => number;

export function encodeStep(step: PlainStep, keyOfShape?: KeyOfShape): Int32Array {
  const sequences = [...step.sequences, ...paddingSequences(step)];
  const regions = new Map<StepRegion, number[]>();
  const put: Put = (region, ...values) => {
    const known = regions.get(region);
    if (known === undefined) regions.set(region, values);
    else for (const value of values) known.push(value);
  };
  const rows = sequences.flatMap((sequence, seq) => sequence.rows.map((row) => ({ row, seq })));
  const stride = step.stride ?? Math.max(1, ...sequences.map((sequence) => sequence.blocks.length));
  const starts = putSequences(put, sequences, step.blockSize, stride);
  for (let token = starts.at(-1)!; token < (step.numTokens ?? 0); token++) {
    put('tokenIds', 0);
    put('positions', 0);
    put('slotMapping', -1);
  }
  putRows(put, rows, starts);
  const histories = sequences.flatMap((sequence, seq) =>
    sequence.history ? [{ seq, list: sequence.history }] : [],
  );
  put('historySeqs', ...histories.map(({ seq }) => seq));
  putLists(put, 'historyOffsets', 'historyTokens', histories.map(({ list }) => list)); // prettier-ignore
  const header = {
    magic: stepMagic,
    version: stepVersion,
    stepId: step.stepId,
    numTokens: regions.get('tokenIds')?.length ?? 0,
    numSeqs: sequences.length,
    numLogitRows: rows.length,
    blockTableStride: stride,
    maxTopLogprobs: Math.max(0, ...rows.map(({ row }) => row.numLogprobs ?? 0)),
    numHistorySeqs: histories.length,
  };
  const words = assemble(header, regions);
  if (keyOfShape !== undefined && header.numTokens === header.numSeqs && !hasLists(regions))
    words[stepHeader.indexOf('captureKey')] = keyOfShape(`${shapeOf(words)};${samplingOf(rows)}`);
  return words;
}

/** What a step of single tokens is padded up to a bucket with. */
function paddingSequences({ sequences, numSeqs = 0 }: PlainStep): PlainSequence[] {
  const padding = { slot: 0, tokens: [0], start: 0, promptLen: 1, blocks: [0], isPadding: true };
  const row = { token: 0, mode: 0, numLogprobs: -1 };
  return Array.from({ length: Math.max(0, numSeqs - sequences.length) }, () => ({ ...padding, rows: [row] }));
}

const listRegions = ['historyOffsets', 'suppressOffsets', 'allowedOffsets', 'biasOffsets', 'badWordsOffsets'] as const; // prettier-ignore
const hasLists = (regions: ReadonlyMap<StepRegion, number[]>): boolean =>
  listRegions.some((region) => (regions.get(region)?.length ?? 0) > 0);

/** Whether any row draws, does so from fewer than all tokens, wants logprobs, has penalties. */
function samplingOf(rows: readonly { row: PlainRow }[]): string {
  const draws = ({ mode = rowMode.greedy }: PlainRow): boolean =>
    (mode & rowMode.sample) !== 0 && (mode & rowMode.greedy) === 0;
  const isLimited = (row: PlainRow): boolean =>
    draws(row) && ((row.topK ?? 0) > 0 || (row.topP ?? 1) < 1 || (row.minP ?? 0) > 0);
  const wantsLogprobs = ({ numLogprobs = 0 }: PlainRow): boolean => numLogprobs >= 0;
  const isPenalized = ({
    presencePenalty = 0,
    frequencyPenalty = 0,
    repetitionPenalty = 1,
  }: PlainRow): boolean => presencePenalty !== 0 || frequencyPenalty !== 0 || repetitionPenalty !== 1;
  return [draws, isLimited, wantsLogprobs, isPenalized]
    .map((asks) => rows.some(({ row }) => asks(row)))
    .join();
}

/** Counts and the places of all regions, without the step's own number. */
function shapeOf(words: Int32Array): string {
  const header = words.slice(0, stepHeaderWords);
  header[stepHeader.indexOf('stepId')] = 0;
  return header.join();
}

type Put = (region: StepRegion, ...values: number[]) => void;

/** Returns the first token row of each sequence, and the end. */
function putSequences(
  put: Put,
  sequences: readonly PlainSequence[],
  blockSize: number,
  stride: number,
): number[] {
  const starts = [0];
  for (const { slot, tokens, start, promptLen, blocks, isPadding } of sequences) {
    tokens.forEach((token, i) => {
      const position = start + i;
      const kvSlot = blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
      put('tokenIds', token);
      put('positions', position);
      put('slotMapping', isPadding ? -1 : kvSlot);
    });
    starts.push(starts.at(-1)! + tokens.length);
    put('seqLens', start + tokens.length);
    put('promptLens', promptLen);
    put('seqSlots', slot);
    put('blockTables', ...blocks, ...Array<number>(stride - blocks.length).fill(0));
  }
  put('cuSeqlensQ', ...starts);
  return starts;
}

function putRows(put: Put, rows: readonly { row: PlainRow; seq: number }[], starts: readonly number[]): void {
  for (const { row, seq } of rows) {
    const seed = row.seed ?? 0n;
    put('logitRows', starts[seq]! + row.token);
    put('rowSeqs', seq);
    put('rowModes', row.mode ?? rowMode.sample | rowMode.greedy);
    put('targets', row.target ?? -1);
    put('numLogprobs', row.numLogprobs ?? 0);
    put('seedLow', Number(BigInt.asIntN(32, seed)));
    put('seedHigh', Number(BigInt.asIntN(32, seed >> 32n)));
    put('temperature', row.temperature ?? 1);
    put('topK', row.topK ?? 0);
    put('topP', row.topP ?? 1);
    put('minP', row.minP ?? 0);
    put('presencePenalty', row.presencePenalty ?? 0);
    put('frequencyPenalty', row.frequencyPenalty ?? 0);
    put('repetitionPenalty', row.repetitionPenalty ?? 1);
  }
  const listsOf = (list: (row: PlainRow) => readonly number[]): (readonly number[])[] =>
    rows.map(({ row }) => list(row));
  putLists(put, 'suppressOffsets', 'suppressTokens', listsOf((row) => row.suppress ?? [])); // prettier-ignore
  putLists(put, 'allowedOffsets', 'allowedTokens', listsOf((row) => row.allowed ?? [])); // prettier-ignore
  putLists(put, 'biasOffsets', 'biasTokens', listsOf((row) => (row.bias ?? []).map(([token]) => token))); // prettier-ignore
  put('biasValues', ...rows.flatMap(({ row }) => (row.bias ?? []).map(([, value]) => value)));
  putLists(put, 'badWordsOffsets', 'badWords', listsOf((row) => (row.badWords ?? []).flatMap((word) => [word.length, ...word]))); // prettier-ignore
}

/** Nothing at all where every list is empty. */
function putLists(
  put: Put,
  offsets: StepRegion,
  values: StepRegion,
  lists: readonly (readonly number[])[],
): void {
  if (lists.every((list) => list.length === 0)) return;
  let end = 0;
  put(offsets, 0, ...lists.map((list) => (end += list.length)));
  put(values, ...lists.flat());
}

function assemble(
  header: Partial<Record<StepHeaderField, number>>,
  regions: ReadonlyMap<StepRegion, number[]>,
): Int32Array {
  const sizeWords = stepHeaderWords + [...regions.values()].reduce((sum, values) => sum + values.length, 0);
  const words = new Int32Array(sizeWords);
  const floats = new Float32Array(words.buffer);
  for (const [field, value] of Object.entries({ ...header, sizeWords })) {
    words[stepHeader.indexOf(field as StepHeaderField)] = value;
  }
  let at = stepHeaderWords;
  for (const [region, values] of regions) {
    if (values.length === 0) continue;
    words[stepHeader.length + stepRegionNames.indexOf(region)] = at;
    (stepRegions[region] === 'f' ? floats : words).set(values, at);
    at += values.length;
  }
  return words;
}
