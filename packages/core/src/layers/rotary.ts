import type { GraphBuilder, Value } from '../program/graph-builder.js';
import type { ModelConfig } from '../models/model-config.js';
import { ropeParameters } from '../models/rope.js';
import { roundTo } from '../program/reference/rounding.js';

/** Cosines and sines of the step's positions, f32 [T, rotaryDim]; computed once for all layers. */
export function rotaryCosSin(g: GraphBuilder, config: ModelConfig): Value {
  const { invFreq, scale, dynamic } = ropeParameters(config);
  const rounded = roundTo(invFreq, config.ropeFrequencyDtype ?? 'f32');
  return g.ropeCosSin(g.input('positions'), g.constant('rope.inv_freq', rounded), { scale, dynamic });
}
