/** Element types of values in a Program. `state` is the KV-cache state token, which has no bytes of its own. */
export const dtypes = ['f32', 'bf16', 'f16', 'i32', 'state'] as const;
export type Dtype = (typeof dtypes)[number];

/** Element types a checkpoint may hold: safetensors' names, then GGUF's block formats. */
export const checkpointDtypes = [
  'F32', 'F16', 'BF16',
  'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0',
  'Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K',
] as const; // prettier-ignore
export type CheckpointDtype = (typeof checkpointDtypes)[number];

/** Bytes of one element. */
export const dtypeBytes: Readonly<Record<Dtype, number>> = { f32: 4, bf16: 2, f16: 2, i32: 4, state: 0 };
