import { causalDecoder } from '../layers/causal-decoder.js';
import type { ModelFunction } from './model-function.js';

/** Qwen3, dense: Llama's layers with an RMS norm over each head of q and k before rotation. */
export const qwen3: ModelFunction = (g, config) => causalDecoder(g, config, { qkNorm: true });
