import { causalDecoder } from '../layers/causal-decoder.js';
import type { ModelFunction } from './model-function.js';

/** Mistral 7B and its kin: Llama's layers, attention within `slidingWindows[layer]` tokens. */
export const mistral: ModelFunction = (g, config) => causalDecoder(g, config);
