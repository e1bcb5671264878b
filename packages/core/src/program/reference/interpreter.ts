/** Runs a plan op by op with the references: segments, tiles, tensors as plain arrays, outputs rounded to their types. */
import {
  ops, resultHeader, resultWords, type Dim, type Plan, type PlanOp, type PlanSegment, type PlanTensor,
} from '../../backend/index.js'; // prettier-ignore
import { invariant } from '../../errors.js';
import { operandName } from '../verify.js';
import { ReferenceKvCache } from './kv-cache.js';
import {
  opReferences,
  type OpReferences,
  type ReferenceContext,
  type ReferenceTensor,
} from './op-reference.js';
import { encode16, roundTo } from './rounding.js';
import { Sampler } from './sampler.js';
import { StepReader } from './step-reader.js';

/** Called with each result of an op; rows of tiled segments come in pieces, from logit row `firstRow` on. */
export type OnValue = (op: PlanOp, tensor: number, value: ReferenceTensor, firstRow: number) => void;

interface Tile {
  readonly firstRow: number;
  readonly numRows: number;
}

export class Interpreter {
  readonly kv: ReferenceKvCache;
  readonly #plan: Plan;
  readonly #weights: readonly Float32Array[];
  readonly #sampler: Sampler;
  readonly #references: OpReferences;

  /** `weights`: the values of each of the plan's weights, already rounded to their types. */
  constructor(plan: Plan, weights: readonly Float32Array[], references: OpReferences = opReferences) {
    this.#plan = plan;
    this.#weights = weights;
    this.#references = references;
    this.kv = new ReferenceKvCache(plan.kvLayers, plan.limits);
    this.#sampler = new Sampler(plan.limits.maxSeqs);
  }

  /** Runs a step and fills its result. */
  run(words: Int32Array, result: Int32Array, onValue?: OnValue): void {
    const step = new StepReader(words);
    this.#sampler.beginStep(step);
    const { kv } = this;
    const run = new StepRun(
      this.#plan,
      this.#weights,
      this.#references,
      step,
      result,
      kv,
      this.#sampler,
      onValue,
    );
    for (const segment of this.#plan.segments) run.segment(segment);
    run.finish();
  }
}

/** One step on its way through the plan. */
class StepRun {
  readonly #values = new Map<number, ReferenceTensor>();
  /** Pieces of outputs, in the order of rows. */
  readonly #outputs = new Map<number, (Float32Array | Int32Array)[]>();

  constructor(
    readonly plan: Plan,
    readonly weights: readonly Float32Array[],
    readonly references: OpReferences,
    readonly step: StepReader,
    readonly result: Int32Array,
    readonly kv: ReferenceKvCache,
    readonly sampler: Sampler,
    readonly onValue: OnValue | undefined,
  ) {}

  segment({ firstOp, numOps, tile }: PlanSegment): void {
    const rows = this.step.numLogitRows;
    const size = tile ?? Math.max(rows, 1);
    for (let firstRow = 0; firstRow < (tile === undefined ? 1 : rows); firstRow += size) {
      const current = { firstRow, numRows: tile === undefined ? rows : Math.min(tile, rows - firstRow) };
      for (const op of this.plan.ops.slice(firstOp, firstOp + numOps)) this.#runOp(op, current);
    }
  }

  /** Writes the header, and the outputs that no sampling writes. */
  finish(): void {
    const { step, result } = this;
    const header = {
      stepId: step.stepId,
      status: 0,
      numLogitRows: step.numLogitRows,
      maxTopLogprobs: step.maxTopLogprobs,
    };
    for (const [field, value] of Object.entries(header))
      result[resultHeader.indexOf(field as 'stepId')] = value;
    let at = resultWords(step.numLogitRows, step.maxTopLogprobs);
    this.plan.tensors.forEach((tensor, id) => {
      if (tensor.kind !== 'output' || this.#isSampled(id)) return;
      at += writeValues(tensor, this.#outputs.get(id) ?? [], result, at);
    });
  }

  #isSampled(tensor: number): boolean {
    return this.plan.ops.some((op) => op.op === 'sample' && op.outputs.includes(tensor));
  }

  #runOp(op: PlanOp, tile: Tile): void {
    const outputs = this.references[op.op](this.#contextOf(op, tile));
    op.outputs.forEach((id, i) => {
      const tensor = this.plan.tensors[id]!;
      const data = outputs[i];
      if (data === undefined) return;
      if (data instanceof Float32Array) roundTo(data, tensor.dtype);
      const value = { ...this.#sizes(tensor.dims, tile), data };
      this.#values.set(id, value);
      if (tensor.kind === 'output') this.#outputs.set(id, [...(this.#outputs.get(id) ?? []), data]);
      this.onValue?.(op, id, value, tile.firstRow);
    });
  }

  #contextOf(op: PlanOp, tile: Tile): ReferenceContext {
    const names = ops[op.op].inputs.map(operandName);
    const idOf = (name: string): number => op.inputs[names.indexOf(name)] ?? -1;
    const get = (name: string): ReferenceTensor => this.#read(idOf(name), tile);
    const { step, sampler, result } = this;
    return {
      has: (name) => idOf(name) >= 0,
      floats: (name) => get(name) as ReturnType<ReferenceContext['floats']>,
      ints: (name) => get(name).data as Int32Array,
      attrs: op.attrs,
      step,
      kv: this.kv,
      sample: (logits, vocabSize) => sampler.sampleRows(step, logits, vocabSize, tile.firstRow, result),
      lastToken: (seq) => sampler.lastToken(step.ints('seqSlots', step.numSeqs)[seq]!),
    };
  }

  #read(id: number, tile: Tile): ReferenceTensor {
    const tensor = this.plan.tensors[id]!;
    const sizes = this.#sizes(tensor.dims, tile);
    if (tensor.kind === 'weight') return { ...sizes, data: this.weights[tensor.weight]! };
    if (tensor.kind === 'input') {
      const isRows = tensor.input === 'logitRows';
      const all = this.step.ints(tensor.input, isRows ? this.step.numLogitRows : this.step.numTokens);
      return { ...sizes, data: isRows ? all.subarray(tile.firstRow, tile.firstRow + tile.numRows) : all };
    }
    const value = this.#values.get(id);
    invariant(value !== undefined, `tensor ${id} is read before it is computed`);
    return value;
  }

  /** A matrix's rows and columns; vectors are one column wide. */
  #sizes(dims: readonly Dim[], tile: Tile): { rows: number; columns: number } {
    const sizeOf = { T: this.step.numTokens, S: this.step.numSeqs, L: tile.numRows };
    const [rows = 1, columns = 1] = dims.map((dim) => (typeof dim === 'number' ? dim : sizeOf[dim]));
    return { rows, columns };
  }
}

/** Encodes pieces of values in the tensor's type from word `at` on; returns the words taken. */
function writeValues(
  tensor: PlanTensor,
  pieces: readonly (Float32Array | Int32Array)[],
  result: Int32Array,
  at: number,
): number {
  const values = pieces.flatMap((piece) => Array.from(piece));
  const is16Bit = tensor.dtype === 'bf16' || tensor.dtype === 'f16';
  const numWords = is16Bit ? Math.ceil(values.length / 2) : values.length;
  invariant(at + numWords <= result.length, `the result has no room for an output of ${numWords} words`);
  const begin = result.byteOffset + 4 * at;
  if (is16Bit)
    new Uint16Array(result.buffer, begin, values.length).set(encode16(values, tensor.dtype === 'bf16'));
  else if (tensor.dtype === 'i32') result.set(values, at);
  else new Float32Array(result.buffer, begin, values.length).set(values);
  return numWords;
}
