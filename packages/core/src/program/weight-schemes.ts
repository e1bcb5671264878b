/** Which matrices of a checkpoint are held as grouped integers: those of GGUF's block formats, all parts of them. */
import {
  weightSchemes,
  type CheckpointDtype,
  type Dtype,
  type TensorLocation,
  type WeightScheme,
} from '../backend/index.js';
import { invariant } from '../errors.js';
import type { Program, ProgramWeight } from './program.js';

/**
 * The smallest scheme that holds a format's integers as they are. Scales and minima are the file's, or (K formats) their products,
 * rounded to f16.
 */
const schemeOf: Readonly<Record<CheckpointDtype, WeightScheme | undefined>> = {
  F32: undefined,
  F16: undefined,
  BF16: undefined,
  Q4_0: 'int4:g32',
  Q4_1: 'int4:g32:min',
  Q5_0: 'int8:g32',
  Q5_1: 'int8:g32:min',
  Q8_0: 'int8:g32',
  Q2_K: 'int8:g16:min',
  Q3_K: 'int8:g16',
  Q4_K: 'int4:g32:min',
  Q5_K: 'int8:g32:min',
  Q6_K: 'int8:g16',
};

/**
 * The program with the schemes of the matrices that `locations` says are quantized. Rounding the scales of K formats to f16 is
 * less than rounding weights to 16 bits, but more than a model in float32 is to differ by.
 */
export function withSchemes(program: Program, locations: ReadonlyMap<string, TensorLocation>): Program {
  const weights = program.weights.map((weight): ProgramWeight => {
    if (weight.shape.length !== 2) return weight;
    const schemes = weight.parts.map((part) => tensorScheme(locations.get(part), program.dtype));
    return { ...weight, scheme: schemes.length === 0 ? undefined : joinSchemes(schemes) };
  });
  return { ...program, weights };
}

function tensorScheme(location: TensorLocation | undefined, dtype: Dtype): WeightScheme | undefined {
  if (location === undefined || (dtype === 'f32' && location.dtype.endsWith('_K'))) return undefined;
  return schemeOf[location.dtype];
}

/** The smallest scheme that holds what any of them holds; undefined where one of them is plain numbers. */
export function joinSchemes(schemes: readonly (WeightScheme | undefined)[]): WeightScheme | undefined {
  const infos = schemes.filter((scheme) => scheme !== undefined).map((scheme) => weightSchemes[scheme]);
  if (infos.length < schemes.length) return undefined;
  const bits = Math.max(...infos.map((info) => info.bits));
  const groupSize = Math.min(...infos.map((info) => info.groupSize));
  const name = `int${bits}:g${groupSize}${infos.some((info) => info.hasMin) ? ':min' : ''}`;
  invariant(name in weightSchemes, `no weight scheme ${name}`);
  return name as WeightScheme;
}
