/** The reference backend with faults of many kinds: what the conformance kit has to find. */
import {
  rowMode, stepHeader, stepRegionNames, type BackendModule, type DeviceGroup, type Executable, type StepHeaderField,
  type StepRegion,
} from '../../src/backend/index.js'; // prettier-ignore
import {
  createReferenceBackend,
  type ReferenceBackendOptions,
} from '../../src/conformance/reference-backend.js';
import { attention } from '../../src/program/reference/attention.js';
import type { ReferenceKvCache } from '../../src/program/reference/kv-cache.js';
import {
  opReferences,
  type OpReference,
  type OpReferences,
} from '../../src/program/reference/op-reference.js';
import { roundBf16 } from '../../src/program/reference/rounding.js';
import type { StepReader } from '../../src/program/reference/step-reader.js';

export type References = Partial<OpReferences>;

export const withReferences = (
  references: References,
  options: ReferenceBackendOptions = {},
): BackendModule => createReferenceBackend({ ...options, references });

/** The reference of an op with its attributes changed. */
const withAttrs = (
  op: keyof OpReferences,
  change: (attrs: Readonly<Record<string, number>>) => Record<string, number>,
): References => ({
  [op]: (context: Parameters<OpReference>[0]) =>
    opReferences[op]({ ...context, attrs: { ...context.attrs, ...change(context.attrs) } }),
});

export const wrongScale = withAttrs('attention', ({ scale }) => ({ scale: scale! * 1.03 }));
export const noSoftCap = withAttrs('attention', () => ({ softCap: 0 }));
export const widerWindow = withAttrs('attention', ({ slidingWindow }) => ({
  slidingWindow: slidingWindow! > 0 ? slidingWindow! + 1 : 0,
}));
export const mixedUpPairs = withAttrs('rope', ({ interleaved }) => ({ interleaved: 1 - interleaved! }));

/** Looks at the step's arrays with some of them changed. */
function stepWith(step: StepReader, change: (region: string, values: Int32Array) => Int32Array): StepReader {
  return new Proxy(step, {
    get(target, name) {
      if (name === 'ints')
        return (region: 'positions', size: number) => change(region, target.ints(region, size));
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
    },
  });
}

/** Tokens do not see themselves. */
export const strictlyCausal: References = {
  attention: (context) => {
    const step = stepWith(context.step, (region, values) =>
      region === 'positions' ? values.map((position) => Math.max(0, position - 1)) : values,
    );
    return opReferences.attention({ ...context, step });
  },
};

type Read = ReferenceKvCache['read'];
const kvWith = (kv: ReferenceKvCache, read: (real: Read) => Read): ReferenceKvCache =>
  ({ read: read(kv.read.bind(kv)) }) as unknown as ReferenceKvCache;

/** Query head h reads KV head h mod numKvHeads. */
export const wrongHeads: References = {
  attention: ({ floats, attrs, step, kv }) => {
    const { numHeads, numKvHeads, headDim } = attrs as Record<string, number>;
    const q = floats('q').data;
    const y = new Float32Array(q.length);
    for (let h = 0; h < numHeads!; h++) {
      const places = [...q.keys()].filter((i) => h === Math.floor(i / headDim!) % numHeads!);
      const one = Float32Array.from(places, (i) => q[i]!);
      const other = kvWith(kv, (real) => (layer, _, table, position) => real(layer, h % numKvHeads!, table, position)); // prettier-ignore
      const got = attention(one, { ...attrs, numHeads: 1, numKvHeads: 1 }, step, other);
      got.forEach((value, i) => (y[places[i]!] = value));
    }
    return [y];
  },
};

/** From the third block on, the second is read. */
export const wrongBlock: References = {
  attention: (context) => {
    const kv = kvWith(context.kv, (real) => (layer, head, table, position) =>
      real(layer, head, table.map((block, i) => (i > 1 ? table[1]! : block)), position));
    return opReferences.attention({ ...context, kv });
  },
}; // prettier-ignore

/** What is in a slot stays there. */
export function stalePages(): References {
  const written = new WeakMap<ReferenceKvCache, Set<string>>();
  return {
    kv_write: (context) =>
      staleWrite(context, written, (slots) => opReferences.kv_write(withSlots(context, slots))),
    qkv_rope_kv_write: (context) =>
      staleWrite(context, written, (slots) => opReferences.qkv_rope_kv_write(withSlots(context, slots))),
  };
}

function staleWrite(
  { ints, kv, attrs }: Parameters<OpReference>[0],
  written: WeakMap<ReferenceKvCache, Set<string>>,
  write: (slots: Int32Array) => ReturnType<OpReference>,
): ReturnType<OpReference> {
  const known = written.get(kv) ?? new Set<string>();
  written.set(kv, known);
  const slots = ints('slotMapping').map((slot) => (known.has(`${attrs.layer}:${slot}`) ? -1 : slot));
  for (const slot of slots) if (slot >= 0) known.add(`${attrs.layer}:${slot}`);
  return write(slots);
}

const withSlots = (context: Parameters<OpReference>[0], slots: Int32Array): Parameters<OpReference>[0] => ({
  ...context,
  ints: (name) => (name === 'slotMapping' ? slots : context.ints(name)),
});

/** Padding's keys and values go to slot 0. */
export const paddingIsWritten: References = {
  kv_write: (context) =>
    opReferences.kv_write(withSlots(context, context.ints('slotMapping').map((slot) => Math.max(0, slot)))),
}; // prettier-ignore

export const noBias: References = {
  linear: (context) =>
    opReferences.linear({ ...context, has: (name) => name !== 'bias' && context.has(name) }),
};

export const residualTwice: References = {
  linear_add: (context) => {
    const [y] = opReferences.linear_add(context) as [Float32Array];
    return [y.map((value, i) => value + context.floats('residual').data[i]!)];
  },
};

/** Cuts off the lower half of f32. */
const truncated = (values: Float32Array): Float32Array => {
  const bits = new Uint32Array(values.slice().buffer);
  return new Float32Array(bits.map((word) => (word & 0xffff0000) >>> 0).buffer);
};

export const truncatingNorm: References = {
  rms_norm: (context) => opReferences.rms_norm(context).map((y) => truncated(y as Float32Array)),
};

export const bf16Sums: References = {
  linear: ({ floats }) => {
    const [x, weight] = [floats('x'), floats('weight')];
    const y = new Float32Array(x.rows * weight.rows);
    for (let r = 0; r < x.rows; r++)
      for (let n = 0; n < weight.rows; n++)
        for (let k = 0; k < x.columns; k++)
          y[r * weight.rows + n] = roundBf16(
            y[r * weight.rows + n]! + x.data[r * x.columns + k]! * weight.data[n * x.columns + k]!,
          );
    return [y];
  },
};

/** Behind the rotated elements of a head there is nothing. */
export const noRotaryTail: References = {
  rope: (context) => {
    const { headDim, rotaryDim } = context.attrs as Record<string, number>;
    const [y] = opReferences.rope(context) as [Float32Array];
    return [y.map((value, i) => (i % headDim! < rotaryDim! ? value : 0))];
  },
};

export const epsOutsideTheRoot: References = {
  rms_norm: ({ floats, attrs }) => {
    const { size, eps } = attrs as Record<string, number>;
    const [x, weight] = [floats('x').data, floats('weight').data];
    const scales = Array.from({ length: x.length / size! }, (_, row) => {
      const squares = x.subarray(row * size!, (row + 1) * size!).reduce((sum, value) => sum + value ** 2, 0);
      return 1 / (Math.sqrt(squares / size!) + eps!);
    });
    return [x.map((value, i) => value * scales[Math.floor(i / size!)]! * weight[i % size!]!)];
  },
};

/** Among equals the last one wins. */
export const lastOfEquals: References = {
  sample: (context) => {
    const { data, columns } = context.floats('logits');
    return [context.sample(data.map((value, i) => value + (i % columns) * 1e-7), columns)];
  },
}; // prettier-ignore

/** The first row feels that there is padding. */
export const activePadding: References = {
  embedding: (context) => {
    const [y] = opReferences.embedding(context) as [Float32Array];
    if (context.step.tokenSeqs().includes(-1)) y[0]! += 0.01;
    return [y];
  },
};

/** Results depend on how many tokens there are. */
export const batchDependent: References = {
  linear: (context) => {
    const [y] = opReferences.linear(context) as [Float32Array];
    return [y.map((value) => value * (1 + context.step.numTokens * 2e-7))];
  },
};

export interface Wrapping {
  readonly options?: ReferenceBackendOptions;
  readonly open?: () => void;
  readonly group?: (group: DeviceGroup) => Partial<DeviceGroup>;
  readonly executable?: (executable: Executable) => Partial<Executable>;
}

/** The reference backend with some of its methods replaced. */
export function wrapped({ options, open, group, executable }: Wrapping): BackendModule {
  const module = createReferenceBackend(options);
  const wrapGroup = (real: DeviceGroup): DeviceGroup => {
    const base: DeviceGroup = {
      constraints: real.constraints,
      kvBlockBytes: (layer, blockSize) => real.kvBlockBytes(layer, blockSize),
      negotiate: (request) => real.negotiate(request),
      load: async (plan, weights, load) => wrapExecutable(await real.load(plan, weights, load)),
      close: () => real.close(),
    };
    return { ...base, ...group?.(base) };
  };
  const wrapExecutable = (real: Executable): Executable => ({
    run: (step, result) => real.run(step, result),
    memory: () => real.memory(),
    close: () => real.close(),
    ...executable?.(real),
  });
  return {
    api: module.api,
    create(host) {
      const backend = module.create(host);
      return {
        info: backend.info,
        devices: () => backend.devices(),
        open: async (ids, openOptions) => {
          open?.();
          return wrapGroup(await backend.open(ids, openOptions));
        },
      };
    },
  };
}

const headerAt = (field: StepHeaderField): number => stepHeader.indexOf(field);

/** Words of a region of a step. */
export function region(step: Int32Array, name: StepRegion, size: number): Int32Array {
  const begin = step[stepHeader.length + stepRegionNames.indexOf(name)]!;
  return step.subarray(begin, begin + size);
}

/** Changes a copy of every step before it is run. */
export const changingSteps = (change: (step: Int32Array, numRows: number) => void): BackendModule =>
  wrapped({
    executable: (real) => ({
      run(step, result) {
        const copy = step.slice();
        change(copy, copy[headerAt('numLogitRows')]!);
        real.run(copy, result);
      },
    }),
  });

export const seedIgnored = changingSteps((step, rows) => {
  region(step, 'seedLow', rows).fill(0);
  region(step, 'seedHigh', rows).fill(0);
});

export const alwaysRawLogprobs = changingSteps((step, rows) => {
  const modes = region(step, 'rowModes', rows);
  modes.set(modes.map((mode) => mode & ~rowMode.processedLogprobs));
});

/** Top-p keeps one more where the sum reaches it exactly. */
export const topPBeyond = changingSteps((step, rows) => {
  const values = region(step, 'topP', rows);
  const floats = new Float32Array(values.buffer, values.byteOffset, rows);
  floats.set(floats.map((value) => (value < 1 ? value + 1e-6 : value)));
});

/** A step's positions lie in a buffer that the next one overwrites. */
export function racing(): BackendModule {
  return wrapped({
    executable: (real) => {
      let last: Int32Array | undefined;
      return {
        run(step, result) {
          const copy = step.slice();
          const size = copy[headerAt('numTokens')]!;
          if (last !== undefined) {
            const theirs = region(last, 'positions', last[headerAt('numTokens')]!);
            const shared = Math.min(theirs.length, size);
            theirs.set(region(copy, 'positions', shared));
          }
          last = copy;
          real.run(copy, result);
        },
      };
    },
  });
}

/** Recorded steps keep the block tables that they were recorded with. */
export function missingRebind(): BackendModule {
  return wrapped({
    options: { constraints: { capture: true } },
    executable: (real) => {
      const recorded = new Map<number, Int32Array>();
      return {
        run(step, result) {
          const copy = step.slice();
          const key = copy[headerAt('captureKey')]!;
          const size = copy[headerAt('numSeqs')]! * copy[headerAt('blockTableStride')]!;
          const tables = region(copy, 'blockTables', size);
          const known = recorded.get(key);
          if (key > 0 && known !== undefined) tables.set(known);
          else recorded.set(key, tables.slice());
          real.run(copy, result);
        },
      };
    },
  });
}
