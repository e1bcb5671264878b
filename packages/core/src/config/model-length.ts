import type { ModelConfig } from '../models/model-config.js';

/** Tokens that the model's positions reach, rope scaling included, as vLLM derives it. */
export function modelLength({ maxPositionEmbeddings, ropeScaling }: ModelConfig): number {
  if (ropeScaling.type === 'yarn') return Math.floor(ropeScaling.originalMaxPosition * ropeScaling.factor);
  if (ropeScaling.type === 'linear' || ropeScaling.type === 'dynamic') {
    return Math.floor(maxPositionEmbeddings * ropeScaling.factor);
  }
  return maxPositionEmbeddings;
}
