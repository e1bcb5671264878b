import { causalDecoder } from '../layers/causal-decoder.js';
import type { ModelFunction } from './model-function.js';

/** Llama 1 to 3 and models of its shape (SmolLM2, TinyLlama, Yi): projections may have biases, as the configuration says. */
export const llama: ModelFunction = (g, config) => causalDecoder(g, config);
