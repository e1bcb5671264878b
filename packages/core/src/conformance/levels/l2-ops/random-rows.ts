/** Random sampling parameters, edges of each among them. */
import { rowMode } from '../../../backend/index.js';
import type { PlainRow } from '../../plain-step.js';
import type { Random } from '../../random.js';

const processed = [rowMode.sample, rowMode.sample | rowMode.greedy].map(
  (mode) => mode | rowMode.processedLogprobs,
);
const modes = [rowMode.sample, rowMode.sample | rowMode.greedy, rowMode.target, ...processed] as const;

export function randomRow(random: Random, vocabSize: number): Omit<PlainRow, 'token'> {
  const rarely = (make: () => number, otherwise: number): number =>
    random.below(3) === 0 ? make() : otherwise;
  const list = (max: number): number[] =>
    random.ints(random.below(3) === 0 ? random.below(max + 1) : 0, vocabSize);
  return {
    mode: random.pick(modes) | (random.below(8) === 0 ? rowMode.target : 0),
    seed: (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32)),
    temperature: random.pick([0.05, 0.7, 1, 1.9]),
    topK: random.pick([0, 0, 0, 1, 2, 7, 50, 900, vocabSize, 2 * vocabSize]),
    topP: random.pick([1, 1, 0.999, 0.95, 0.9, 0.5, 0.01]),
    minP: random.pick([0, 0, 0, 0.001, 0.1, 1]),
    presencePenalty: rarely(() => 4 * random.uniform() - 2, 0),
    frequencyPenalty: rarely(() => 4 * random.uniform() - 2, 0),
    repetitionPenalty: rarely(() => 0.5 + random.uniform() * 1.5, 1),
    suppress: list(4),
    allowed: list(Math.min(vocabSize, 60)),
    bias: list(5).map((token) => [token, random.normal() * 5] as const),
    badWords: Array.from({ length: random.below(3) }, () => random.ints(1 + random.below(3), vocabSize)),
    target: random.below(vocabSize),
    numLogprobs: Math.min(random.pick([-1, -1, 0, 1, 5, 20, 900]), vocabSize),
  };
}
