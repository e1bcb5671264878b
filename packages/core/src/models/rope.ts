/** Rotary frequencies of every kind of scaling, by the formulas of Hugging Face's ROPE_INIT_FUNCTIONS. */
import type { ModelConfig, RopeScaling } from './model-config.js';

export interface RopeParameters {
  /** [rotaryDim / 2], radians per position. */
  readonly invFreq: Float32Array;
  /** Multiplies cosines and sines. */
  readonly scale: number;
  /** Where the frequencies depend on the sequence's length: what `rope_cos_sin` needs to recompute them. */
  readonly dynamic:
    { readonly base: number; readonly factor: number; readonly originalMaxPosition: number } | undefined;
}

type RopeConfig = Pick<ModelConfig, 'ropeTheta' | 'rotaryDim' | 'ropeScaling'>;
type Scaling<Type extends RopeScaling['type']> = Extract<RopeScaling, { type: Type }>;

export function ropeParameters({ ropeTheta, rotaryDim, ropeScaling }: RopeConfig): RopeParameters {
  const plain = plainFrequencies(ropeTheta, rotaryDim);
  const fixed = (frequencies: readonly number[], scale = 1): RopeParameters => ({
    invFreq: Float32Array.from(frequencies),
    scale,
    dynamic: undefined,
  });
  switch (ropeScaling.type) {
    case 'default':
      return fixed(plain);
    case 'linear':
      return fixed(plain.map((frequency) => frequency / ropeScaling.factor));
    case 'factors':
      return fixed(plain.map((frequency, i) => frequency / ropeScaling.factors[i]!));
    case 'llama3':
      return fixed(plain.map((frequency) => llama3Frequency(frequency, ropeScaling)));
    case 'yarn':
      return fixed(yarnFrequencies(plain, ropeTheta, rotaryDim, ropeScaling), yarnScale(ropeScaling));
    case 'dynamic': {
      const { factor, originalMaxPosition } = ropeScaling;
      return { ...fixed(plain), dynamic: { base: ropeTheta, factor, originalMaxPosition } };
    }
  }
}

/** base^(-2i / rotaryDim). */
function plainFrequencies(base: number, rotaryDim: number): number[] {
  return Array.from({ length: rotaryDim / 2 }, (_, i) => base ** ((-2 * i) / rotaryDim));
}

/** Long waves are stretched by `factor`, short ones kept, those between blended. */
function llama3Frequency(frequency: number, scaling: Scaling<'llama3'>): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPosition } = scaling;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength > originalMaxPosition / lowFreqFactor) return frequency / factor;
  if (wavelength < originalMaxPosition / highFreqFactor) return frequency;
  const smooth = (originalMaxPosition / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

/** Blends stretched and plain frequencies along a ramp between the dimensions that turn betaFast and betaSlow times. */
function yarnFrequencies(
  plain: readonly number[],
  base: number,
  rotaryDim: number,
  { factor, originalMaxPosition, betaFast, betaSlow, truncate }: Scaling<'yarn'>,
): number[] {
  const dimensionTurning = (turns: number): number =>
    (rotaryDim * Math.log(originalMaxPosition / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const from = dimensionTurning(betaFast);
  const to = dimensionTurning(betaSlow);
  const low = Math.max(truncate ? Math.floor(from) : from, 0);
  const high = Math.min(truncate ? Math.ceil(to) : to, rotaryDim - 1);
  const width = low === high ? 0.001 : high - low;
  return plain.map((frequency, i) => {
    const ramp = Math.min(Math.max((i - low) / width, 0), 1);
    return (frequency / factor) * ramp + frequency * (1 - ramp);
  });
}

function yarnScale({ factor, attentionFactor, mscale, mscaleAllDim }: Scaling<'yarn'>): number {
  const magnitude = (by: number): number => (factor <= 1 ? 1 : 0.1 * by * Math.log(factor) + 1);
  if (attentionFactor !== undefined) return attentionFactor;
  return mscale && mscaleAllDim ? magnitude(mscale) / magnitude(mscaleAllDim) : magnitude(1);
}
