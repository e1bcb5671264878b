/** How many bytes the tensors of a checkpoint take. */
import type { CheckpointDtype } from '../backend/index.js';

/** Elements are stored in blocks of `elements`, `bytes` each, along the innermost dimension. */
export const blockLayouts: Readonly<
  Record<CheckpointDtype, { readonly elements: number; readonly bytes: number }>
> = {
  F32: { elements: 1, bytes: 4 },
  F16: { elements: 1, bytes: 2 },
  BF16: { elements: 1, bytes: 2 },
  Q4_0: { elements: 32, bytes: 18 },
  Q4_1: { elements: 32, bytes: 20 },
  Q5_0: { elements: 32, bytes: 22 },
  Q5_1: { elements: 32, bytes: 24 },
  Q8_0: { elements: 32, bytes: 34 },
  Q2_K: { elements: 256, bytes: 84 },
  Q3_K: { elements: 256, bytes: 110 },
  Q4_K: { elements: 256, bytes: 144 },
  Q5_K: { elements: 256, bytes: 176 },
  Q6_K: { elements: 256, bytes: 210 },
};

/** Product of the dimensions; undefined where one is no count or the product is not an exact integer. */
export function tryCountElements(shape: readonly unknown[]): number | undefined {
  let count = 1;
  for (const dim of shape) {
    if (!Number.isSafeInteger(dim) || (dim as number) < 0) return undefined;
    count *= dim as number;
    if (!Number.isSafeInteger(count)) return undefined;
  }
  return count;
}
