/** When an answer goes round in circles: it ends in `minCount` equal patterns of `minPatternSize` to `maxPatternSize` tokens. */
export interface RepetitionDetection {
  readonly maxPatternSize: number;
  readonly minPatternSize: number;
  readonly minCount: number;
}

export function endsInRepetition(tokenIds: readonly number[], detection: RepetitionDetection): boolean {
  const { minPatternSize, maxPatternSize, minCount } = detection;
  const largest = Math.min(maxPatternSize, Math.floor(tokenIds.length / minCount));
  for (let size = minPatternSize; size <= largest; size++)
    if (hasPeriod(tokenIds, size, size * minCount)) return true;
  return false;
}

/** Whether the last `length` tokens repeat their first `period`. */
function hasPeriod(tokenIds: readonly number[], period: number, length: number): boolean {
  const first = tokenIds.length - length + period;
  for (let i = tokenIds.length - 1; i >= first; i--) if (tokenIds[i] !== tokenIds[i - period]) return false;
  return true;
}
