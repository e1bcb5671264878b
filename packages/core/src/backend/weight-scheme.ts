/** Weight schemes: how quantized matrices are held, and computed from, without being unpacked to plain numbers. */

export interface WeightSchemeInfo {
  /** Of an element's unsigned integer u. */
  readonly bits: 4 | 8;
  /** Consecutive elements of a row that share a scale (and a minimum). */
  readonly groupSize: 16 | 32;
  readonly hasMin: boolean;
  /** The u that stands for 0, before the minimum is added. */
  readonly zero: 0 | 8 | 128;
}

/**
 * An element of group g is scale[g] · (u - zero) + min[g]; scales and minima are f16. A matrix of no scheme holds numbers of its
 * dtype.
 */
export const weightSchemes = {
  'int8:g32': { bits: 8, groupSize: 32, hasMin: false, zero: 128 },
  'int8:g32:min': { bits: 8, groupSize: 32, hasMin: true, zero: 128 },
  'int8:g16': { bits: 8, groupSize: 16, hasMin: false, zero: 128 },
  'int8:g16:min': { bits: 8, groupSize: 16, hasMin: true, zero: 128 },
  'int4:g32': { bits: 4, groupSize: 32, hasMin: false, zero: 8 },
  'int4:g32:min': { bits: 4, groupSize: 32, hasMin: true, zero: 0 },
} as const satisfies Record<string, WeightSchemeInfo>;

export type WeightScheme = keyof typeof weightSchemes;
export const weightSchemeNames = Object.keys(weightSchemes) as WeightScheme[];
