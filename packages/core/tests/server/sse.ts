/** Server-sent events of a body, as JSON; the closing [DONE] stays a string. */
export interface SseChunk {
  readonly id: string;
  readonly object: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint?: string;
  readonly prompt_token_ids?: number[];
  readonly prompt_text?: string;
  readonly usage?: {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
    prompt_tokens_details?: object;
  };
  readonly error?: { message: string; code: number; type: string; tenon_code: string };
  readonly choices: {
    readonly index: number;
    readonly text?: string;
    readonly delta?: { role?: string; content?: string };
    readonly logprobs: Record<string, unknown[]> | null;
    readonly finish_reason: string | null;
    readonly stop_reason?: string | number | null;
    readonly token_ids?: number[];
    readonly prompt_token_ids?: number[];
  }[];
}

export function parseSse(body: string): { chunks: SseChunk[]; isDone: boolean } {
  const events = body.split('\n\n').filter((event) => event !== '');
  const data = events.map((event) => {
    if (!event.startsWith('data: ')) throw new Error(`not an event: ${event}`);
    return event.slice('data: '.length);
  });
  const isDone = data.at(-1) === '[DONE]';
  return { chunks: (isDone ? data.slice(0, -1) : data).map((json) => JSON.parse(json) as SseChunk), isDone };
}
