import { causalDecoder } from '../layers/causal-decoder.js';
import type { ModelFunction } from './model-function.js';

/** Qwen2 and Qwen2.5: Llama's layers with biases on q, k and v (`qkvBias`); upper layers may have a sliding window. */
export const qwen2: ModelFunction = (g, config) => causalDecoder(g, config);
