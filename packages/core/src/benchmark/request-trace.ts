/** What one request to a server was seen to do. */
export interface RequestTrace {
  /** As the server counted them. */
  readonly numPromptTokens: number;
  readonly numOutputTokens: number;
  /** When the request was sent; milliseconds of a monotonic clock. */
  readonly startMs: number;
  /** When each piece of the answer came; mostly, a piece is a token. */
  readonly pieceMs: readonly number[];
  readonly endMs: number;
  readonly text: string;
  /** Why the request failed, or its answer is not what was asked for. */
  readonly error: string | undefined;
}

/** To the first piece. */
export function timeToFirstTokenMs({ startMs, pieceMs }: RequestTrace): number {
  return pieceMs[0]! - startMs;
}

/** Between pieces. */
export function interTokenMs({ pieceMs }: RequestTrace): number[] {
  return pieceMs.slice(1).map((time, i) => time - pieceMs[i]!);
}

/** To the last piece. */
export function endToEndMs({ startMs, pieceMs }: RequestTrace): number {
  return pieceMs.at(-1)! - startMs;
}

/** Mean time of a token after the first; undefined where there is none. */
export function timePerOutputTokenMs(trace: RequestTrace): number | undefined {
  if (trace.numOutputTokens < 2) return undefined;
  return (endToEndMs(trace) - timeToFirstTokenMs(trace)) / (trace.numOutputTokens - 1);
}
