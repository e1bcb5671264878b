/** Records a model as a Program. One typed method per unfused op; shapes are inferred and checked as ops are added. */
import {
  dtypes,
  ops,
  type Activation,
  activations,
  type Dim,
  type Dtype,
  type OpName,
  type OpSpec,
} from '../backend/index.js';
import type { PlanKvLayer, StepInput } from '../backend/index.js';
import { TenonError, invariant } from '../errors.js';
import type { Program, ProgramOp, ProgramValue, ProgramWeight } from './program.js';
import { inferOutputs, operandName, verify } from './verify.js';

/** A handle to a value of the program being recorded. */
export interface Value {
  readonly id: number;
  readonly dtype: Dtype;
  readonly dims: readonly Dim[];
}

export interface AttentionShape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

type Operands = Readonly<Record<string, Value | undefined>>;
type Attrs = Readonly<Record<string, number>>;

const inputTypes: Readonly<Record<StepInput, readonly Dim[]>> = {
  tokenIds: ['T'],
  positions: ['T'],
  slotMapping: ['T'],
  logitRows: ['L'],
};

export class GraphBuilder {
  /** The type of matrices, activations and the KV cache. The residual stream, logits and vectors are f32. */
  readonly dtype: Dtype;
  readonly #values: ProgramValue[] = [];
  readonly #weights: ProgramWeight[] = [];
  readonly #weightValues = new Map<string, Value>();
  readonly #inputs = new Map<StepInput, Value>();
  readonly #kvLayers: PlanKvLayer[] = [];
  readonly #ops: ProgramOp[] = [];
  readonly #outputs: number[] = [];
  #kv: Value | undefined;

  constructor(dtype: Dtype) {
    if (dtype !== 'f32' && dtype !== 'bf16' && dtype !== 'f16') {
      throw new TenonError(
        'unsupported.dtype',
        `models cannot run in ${dtype}; possible are f32, bf16 and f16`,
      );
    }
    this.dtype = dtype;
  }

  /** A region of the step: tokenIds, positions, slotMapping i32 [T], logitRows i32 [L]. */
  input(input: StepInput): Value {
    const known = this.#inputs.get(input);
    if (known !== undefined) return known;
    const value = this.#addValue({ kind: 'input', input, dtype: 'i32', dims: inputTypes[input] });
    this.#inputs.set(input, value);
    return value;
  }

  /** A matrix [rows, columns] of the model's type, under its checkpoint name. */
  matrix(name: string, rows: number, columns: number): Value {
    return this.#weight({ name, parts: [name], shape: [rows, columns], dtype: this.dtype });
  }

  /** A vector [size] (norm weight, bias), held in f32. */
  vector(name: string, size: number): Value {
    return this.#weight({ name, parts: [name], shape: [size], dtype: 'f32' });
  }

  /** A vector made by core, held in f32. */
  constant(name: string, data: Float32Array): Value {
    return this.#weight({ name, parts: [], shape: [data.length], dtype: 'f32', data });
  }

  /** Declares the next KV-cache layer; returns its number. */
  kvLayer(layer: { readonly numKvHeads: number; readonly headDim: number }): number {
    return this.#kvLayers.push({ ...layer, dtype: this.dtype }) - 1;
  }

  /** tokenIds [T], weight [V, H] → f32 [T, H]. */
  embedding(tokenIds: Value, weight: Value): Value {
    return this.#op('embedding', { tokenIds, weight }, {});
  }

  /** Over rows of `size` (all columns if absent). Gives the model's type, or `dtype`. */
  rmsNorm(x: Value, weight: Value, options: { eps: number; size?: number; dtype?: Dtype }): Value {
    const size = options.size ?? columnsOf(x);
    return this.#op('rms_norm', { x, weight }, { size, eps: options.eps }, options.dtype ?? this.dtype);
  }

  /** x [R, K], weight [N, K], bias [N] → f32 [R, N]. */
  linear(x: Value, weight: Value, bias?: Value): Value {
    return this.#op('linear', { x, weight, bias }, {});
  }

  add(a: Value, b: Value): Value {
    return this.#op('add', { a, b }, {});
  }

  /** positions [T] → f32 [T, 2 · invFreq], cosines then sines, times `scale`. */
  ropeCosSin(
    positions: Value,
    invFreq: Value,
    options: { scale: number; dynamic?: { base: number; factor: number; originalMaxPosition: number } },
  ): Value {
    const { scale, dynamic } = options;
    const byLength = dynamic ?? { base: 0, factor: 0, originalMaxPosition: 0 };
    const attrs = {
      rotaryDim: 2 * (invFreq.dims[0] as number),
      scale,
      dynamic: dynamic ? 1 : 0,
      ...byLength,
    };
    return this.#op('rope_cos_sin', { positions, invFreq }, attrs);
  }

  /** Rotates the heads of x [T, numHeads · headDim]. Gives the model's type. */
  rope(
    x: Value,
    cosSin: Value,
    options: { numHeads: number; headDim: number; rotaryDim: number; interleaved: boolean },
  ): Value {
    const attrs = { ...options, interleaved: options.interleaved ? 1 : 0 };
    return this.#op('rope', { x, cosSin }, attrs, this.dtype);
  }

  /** Stores k, v [T, numKvHeads · headDim] of a layer in the cache. */
  kvWrite(k: Value, v: Value, layer: number, shape: { numKvHeads: number; headDim: number }): void {
    const slotMapping = this.input('slotMapping');
    const attrs = { layer, numKvHeads: shape.numKvHeads, headDim: shape.headDim };
    this.#kv = this.#op('kv_write', { k, v, slotMapping, kv: this.#state() }, attrs);
  }

  /** q [T, numHeads · headDim] of the model's type → the same, over what the cache holds by now. */
  attention(
    q: Value,
    layer: number,
    options: AttentionShape & { scale: number; slidingWindow?: number; softCap?: number },
  ): Value {
    const attrs = { slidingWindow: 0, softCap: 0, ...options, layer };
    return this.#op('attention', { q, kv: this.#state() }, attrs, q.dtype);
  }

  /** act(gate) · up, in the model's type. */
  gatedAct(gate: Value, up: Value, activation: Activation): Value {
    return this.#op('gated_act', { gate, up }, { activation: activations.indexOf(activation) }, this.dtype);
  }

  /** x [T, H] → the rows of the step's logits, [L, H]. */
  gatherRows(x: Value, rows: Value): Value {
    return this.#op('gather_rows', { x, rows }, {});
  }

  /** logits f32 [L, V] → tokens i32 [L], an output of the program. */
  sample(logits: Value): Value {
    const tokens = this.#op('sample', { logits }, {});
    this.output(tokens);
    return tokens;
  }

  /** Any op of the table by its name, for ops that only passes create and for programs made of one op. */
  op(name: OpName, operands: Operands, attrs: Attrs, outputDtype?: Dtype): Value {
    return this.#op(name, operands, attrs, outputDtype);
  }

  /** The cache as it is now, an operand of the ops that read or write it. */
  kvState(): Value {
    return this.#state();
  }

  /** Makes a value part of the step's result. */
  output(value: Value): void {
    this.#outputs.push(value.id);
  }

  /** The program so far, verified. */
  finish(): Program {
    const program: Program = {
      dtype: this.dtype,
      values: this.#values,
      weights: this.#weights,
      kvLayers: this.#kvLayers,
      ops: this.#ops,
      outputs: this.#outputs,
    };
    verify(program);
    return program;
  }

  #state(): Value {
    this.#kv ??= this.#addValue({ kind: 'state', dtype: 'state', dims: [] });
    return this.#kv;
  }

  #weight(weight: ProgramWeight): Value {
    const known = this.#weightValues.get(weight.name);
    if (known !== undefined) {
      invariant(
        `${known.dims}` === `${weight.shape}`,
        `weight ${weight.name} is [${known.dims}] and [${weight.shape}]`,
      );
      return known;
    }
    const number = this.#weights.push(weight) - 1;
    const value = this.#addValue({ kind: 'weight', weight: number, dtype: weight.dtype, dims: weight.shape });
    this.#weightValues.set(weight.name, value);
    return value;
  }

  #addValue(value: ProgramValue): Value {
    return { id: this.#values.push(value) - 1, dtype: value.dtype, dims: value.dims };
  }

  /** Adds an op; returns its first output. The state that a fused op gives becomes the newest. */
  #op(op: OpName, operands: Operands, attrs: Attrs, outputDtype?: Dtype): Value {
    const spec: OpSpec = ops[op];
    const inputs = spec.inputs.map((operand) => operands[operandName(operand)]);
    const rules = inferOutputs(op, inputs, attrs, `op ${this.#ops.length} (${op})`);
    const outputs = rules.map((rule, i) => {
      const dtype = (i === 0 ? outputDtype : undefined) ?? rule.dtypes[0]!;
      invariant(dtypes.includes(dtype), `${op}: unknown type ${dtype}`);
      return this.#addValue({ kind: 'result', dtype, dims: rule.dims });
    });
    const known = Object.fromEntries(
      Object.keys(spec.attrs).map((name) => [name, attrs[name] ?? Number.NaN]),
    );
    this.#ops.push({
      op,
      inputs: inputs.map((value) => value?.id ?? -1),
      outputs: outputs.map((value) => value.id),
      attrs: known,
    });
    const state = outputs.find((value) => value.dtype === 'state');
    if (state !== undefined) this.#kv = state;
    return outputs[0]!;
  }
}

function columnsOf(value: Value): number {
  const columns = value.dims[1];
  invariant(typeof columns === 'number', `a value of [${value.dims}] has no columns`);
  return columns;
}
