import type { GraphBuilder, Value } from '../program/graph-builder.js';
import type { ModelConfig } from '../models/model-config.js';
import { projection } from './projection.js';

/** down(act(gate(x)) · up(x)): x [T, hiddenSize] of the model's type → f32 [T, hiddenSize]. */
export function gatedFeedForward(g: GraphBuilder, config: ModelConfig, x: Value, layer: number): Value {
  const { hiddenSize, intermediateSize, mlpBias: bias, activation } = config;
  const name = `model.layers.${layer}.mlp`;
  const inner = { numRows: intermediateSize, numColumns: hiddenSize, bias };
  const gate = projection(g, x, `${name}.gate_proj`, inner);
  const up = projection(g, x, `${name}.up_proj`, inner);
  const hidden = g.gatedAct(gate, up, activation);
  return projection(g, hidden, `${name}.down_proj`, {
    numRows: hiddenSize,
    numColumns: intermediateSize,
    bias,
  });
}
