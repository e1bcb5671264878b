import type { StepReader } from './step-reader.js';

type Attrs = Readonly<Record<string, number>>;

/**
 * [T, rotaryDim]: cosines, then sines, of position · invFreq[i] (an f32 product), times attrs.scale. With attrs.dynamic,
 * frequencies follow the length max(position + 1, prompt length) where it exceeds originalMaxPosition.
 */
export function ropeCosSin(
  positions: Int32Array,
  invFreq: Float32Array,
  attrs: Attrs,
  step: Pick<StepReader, 'tokenSeqs' | 'ints' | 'numSeqs'>,
): Float32Array {
  const rotaryDim = attrs.rotaryDim!;
  const n = rotaryDim / 2;
  const y = new Float32Array(positions.length * rotaryDim);
  const seqs = attrs.dynamic ? step.tokenSeqs() : undefined;
  positions.forEach((position, t) => {
    const seq = seqs?.[t] ?? -1;
    const promptLen = seq < 0 ? 0 : step.ints('promptLens', step.numSeqs)[seq]!;
    const frequencies =
      seqs === undefined ? invFreq : frequenciesAt(Math.max(position + 1, promptLen), invFreq, attrs);
    for (let i = 0; i < n; i++) {
      const angle = Math.fround(position * frequencies[i]!);
      y[t * rotaryDim + i] = Math.cos(angle) * attrs.scale!;
      y[t * rotaryDim + n + i] = Math.sin(angle) * attrs.scale!;
    }
  });
  return y;
}

/** NTK by length: the base grows with the length beyond originalMaxPosition. */
function frequenciesAt(length: number, invFreq: Float32Array, attrs: Attrs): Float32Array {
  const { base, factor, originalMaxPosition, rotaryDim } = attrs as Record<string, number>;
  if (length <= originalMaxPosition!) return invFreq;
  const growth = (factor! * length) / originalMaxPosition! - (factor! - 1);
  const grownBase = base! * growth ** (rotaryDim! / (rotaryDim! - 2));
  return invFreq.map((_, i) => grownBase ** ((-2 * i) / rotaryDim!));
}

/** Rotates the first rotaryDim elements of each head of x [T, numHeads · headDim] by cosSin [T, rotaryDim]. */
export function rope(x: Float32Array, cosSin: Float32Array, attrs: Attrs): Float32Array {
  const { numHeads, headDim, rotaryDim } = attrs as Record<string, number>;
  const n = rotaryDim! / 2;
  const y = x.slice();
  for (let head = 0; head < x.length / headDim!; head++) {
    const t = Math.floor(head / numHeads!);
    for (let i = 0; i < n; i++) {
      const cos = cosSin[t * rotaryDim! + i]!;
      const sin = cosSin[t * rotaryDim! + n + i]!;
      const first = head * headDim! + (attrs.interleaved ? 2 * i : i);
      const second = attrs.interleaved ? first + 1 : first + n;
      y[first] = x[first]! * cos - x[second]! * sin;
      y[second] = x[second]! * cos + x[first]! * sin;
    }
  }
  return y;
}
