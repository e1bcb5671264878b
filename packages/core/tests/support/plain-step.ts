/** Steps written the plain way for tests of backends: one object per sequence, every region laid out anew. */
import {
  resultHeaderWords, resultWords, rowMode, stepHeader, stepHeaderWords, stepMagic, stepRegionNames, stepRegions,
  stepVersion, type Executable, type StepHeaderField, type StepRegion,
} from '../../src/backend/index.js'; // prettier-ignore

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
}

export interface PlainStep {
  readonly stepId: number;
  readonly blockSize: number;
  readonly sequences: readonly PlainSequence[];
  /** Total token rows, with padding. */
  readonly numTokens?: number;
}

export function encodeStep({ stepId, blockSize, sequences, numTokens }: PlainStep): Int32Array {
  const regions = new Map<StepRegion, number[]>();
  const put = (region: StepRegion, ...values: number[]): void => {
    regions.set(region, [...(regions.get(region) ?? []), ...values]);
  };
  const rows = sequences.flatMap((sequence, seq) => sequence.rows.map((row) => ({ row, seq })));
  const stride = Math.max(1, ...sequences.map((sequence) => sequence.blocks.length));
  const starts = putSequences(put, sequences, blockSize, stride);
  const padding = (numTokens ?? starts.at(-1)!) - starts.at(-1)!;
  for (let i = 0; i < padding; i++) {
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
    stepId,
    numTokens: regions.get('tokenIds')?.length ?? 0,
    numSeqs: sequences.length,
    numLogitRows: rows.length,
    blockTableStride: stride,
    maxTopLogprobs: Math.max(0, ...rows.map(({ row }) => row.numLogprobs ?? 0)),
    numHistorySeqs: histories.length,
  };
  return assemble(header, regions);
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
  for (const { slot, tokens, start, promptLen, blocks } of sequences) {
    tokens.forEach((token, i) => {
      const position = start + i;
      put('tokenIds', token);
      put('positions', position);
      put('slotMapping', blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize));
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

/** A step's result as plain lists, one entry per logit row. */
export interface PlainResult {
  readonly tokens: number[];
  readonly logprobs: number[];
  readonly ranks: number[];
  readonly topIds: number[][];
  readonly topLogprobs: number[][];
  /** What the plan's other outputs hold. */
  readonly outputs: Int32Array;
}

/** Runs single steps on an executable and waits for each. `onStepDone` goes into its LoadOptions. */
export class PlainRunner {
  #done: (error: { code: string; message: string } | undefined) => void = () => {};
  executable!: Executable;

  readonly onStepDone = (_: number, error?: { code: string; message: string }): void => this.#done(error);

  async run(step: PlainStep, outputWords = 0): Promise<PlainResult> {
    const words = encodeStep(step);
    const field = (name: StepHeaderField): number => words[stepHeader.indexOf(name)]!;
    const L = field('numLogitRows');
    const K = field('maxTopLogprobs');
    const result = new Int32Array(resultWords(L, K) + outputWords);
    const ended = new Promise<{ code: string; message: string } | undefined>(
      (resolve) => (this.#done = resolve),
    );
    this.executable.run(words, result);
    const failure = await ended;
    if (failure !== undefined) throw new Error(`${failure.code}: ${failure.message}`);
    return decodeResult(result, L, K);
  }
}

function decodeResult(result: Int32Array, L: number, K: number): PlainResult {
  const floats = new Float32Array(result.buffer);
  const ints = (at: number, size: number): number[] => Array.from(result.subarray(at, at + size));
  const reals = (at: number, size: number): number[] => Array.from(floats.subarray(at, at + size));
  const ids = resultHeaderWords + 3 * L;
  const perRow = <T>(read: (row: number) => T): T[] => Array.from({ length: L }, (_, row) => read(row));
  return {
    tokens: ints(resultHeaderWords, L),
    logprobs: reals(resultHeaderWords + L, L),
    ranks: ints(resultHeaderWords + 2 * L, L),
    topIds: perRow((row) => ints(ids + row * K, K)),
    topLogprobs: perRow((row) => reals(ids + L * K + row * K, K)),
    outputs: result.subarray(resultWords(L, K)),
  };
}
