import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ropeCosSin } from '../program/reference/rope.js';
import type { RopeScaling } from './model-config.js';
import { ropeParameters } from './rope.js';

interface Recorded {
  readonly fixed: readonly {
    readonly type: 'default' | 'linear' | 'llama3' | 'yarn';
    readonly rotaryDim: number;
    readonly theta: number;
    readonly options: Readonly<Record<string, number>>;
    readonly scale: number;
    readonly invFreq: readonly number[];
  }[];
  readonly dynamic: readonly { readonly length: number; readonly cos: number[]; readonly sin: number[] }[];
}

/** Recorded from transformers by make-rope-frequencies.py. */
const recorded: Recorded = JSON.parse(
  readFileSync(new URL('./fixtures/rope-frequencies.json', import.meta.url), 'utf8'),
);

function scalingOf({ type, options }: Recorded['fixed'][number]): RopeScaling {
  const originalMaxPosition = options.original_max_position_embeddings ?? 0;
  const factor = options.factor ?? 1;
  if (type === 'default') return { type };
  if (type === 'linear') return { type, factor };
  if (type === 'llama3') {
    const { low_freq_factor: lowFreqFactor, high_freq_factor: highFreqFactor } = options;
    return {
      type,
      factor,
      originalMaxPosition,
      lowFreqFactor: lowFreqFactor!,
      highFreqFactor: highFreqFactor!,
    };
  }
  return {
    type,
    factor,
    originalMaxPosition,
    betaFast: options.beta_fast ?? 32,
    betaSlow: options.beta_slow ?? 1,
    attentionFactor: options.attention_factor,
    mscale: options.mscale,
    mscaleAllDim: options.mscale_all_dim,
    truncate: Boolean(options.truncate ?? true),
  };
}

describe('ropeParameters', () => {
  it.each(recorded.fixed.map((entry, i) => [`${entry.type} ${i}`, entry] as const))(
    "equals transformers' %s",
    (_, entry) => {
      const { theta: ropeTheta, rotaryDim } = entry;
      const { invFreq, scale, dynamic } = ropeParameters({
        ropeTheta,
        rotaryDim,
        ropeScaling: scalingOf(entry),
      });
      expect(dynamic).toBeUndefined();
      expect(scale).toBeCloseTo(entry.scale, 12);
      expect(invFreq.length).toBe(rotaryDim / 2);
      // transformers computes in f32: a few roundings of 2^-24 each, more where a ramp takes a difference.
      invFreq.forEach((value, i) =>
        expect(Math.abs(value / entry.invFreq[i]! - 1), `invFreq[${i}]`).toBeLessThan(2e-6),
      );
    },
  );

  it.each(recorded.dynamic)(
    "follows transformers' dynamic base at length $length",
    ({ length, cos, sin }) => {
      const ropeScaling = { type: 'dynamic', factor: 4, originalMaxPosition: 64 } as const;
      const { invFreq, scale, dynamic } = ropeParameters({ ropeTheta: 10000, rotaryDim: 32, ropeScaling });
      const attrs = { rotaryDim: 32, scale, dynamic: 1, ...dynamic };
      const step = { numSeqs: 1, tokenSeqs: () => Int32Array.of(0), ints: () => Int32Array.of(length) };
      const cosSin = ropeCosSin(Int32Array.of(length - 1), invFreq, attrs, step);
      // The angle is up to 255 rad in f32.
      [...cos, ...sin].forEach((value, i) => expect(Math.abs(cosSin[i]! - value)).toBeLessThan(5e-5));
    },
  );

  it('uses the whole prompt length for its early positions, so that chunks agree with the whole', () => {
    const invFreq = Float32Array.of(1, 0.1);
    const attrs = { rotaryDim: 4, scale: 1, dynamic: 1, base: 100, factor: 2, originalMaxPosition: 8 };
    const at = (position: number, promptLen: number): Float32Array =>
      ropeCosSin(Int32Array.of(position), invFreq, attrs, {
        numSeqs: 1,
        tokenSeqs: () => Int32Array.of(0),
        ints: () => Int32Array.of(promptLen),
      });
    expect(at(3, 16)).not.toEqual(at(3, 8));
    expect(at(3, 4)).toEqual(at(3, 8));
  });

  it('divides by per-frequency factors', () => {
    const factors = Float32Array.of(1, 2, 4, 8);
    const { invFreq } = ropeParameters({
      ropeTheta: 16,
      rotaryDim: 8,
      ropeScaling: { type: 'factors', factors },
    });
    expect(Array.from(invFreq)).toEqual([1, 0.25, 0.0625, 0.015625]);
  });
});
