import type { GraphBuilder, Value } from '../program/graph-builder.js';
import type { ModelConfig } from './model-config.js';

/** A model: records its ops for a configuration and returns the sampled tokens, i32 [L]. */
export type ModelFunction = (g: GraphBuilder, config: ModelConfig) => Value;
