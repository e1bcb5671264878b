/** The JSON of stream chunks, put together from prebuilt parts: only what is new in a chunk is serialized. */
import type { FinishReason } from '../../engine/types.js';
import type { AnswerMetrics, Usage } from './usage.js';

/** Why an answer ended: as the engine says, or with calls of tools. */
export type AnswerEnd = FinishReason | 'tool_calls';

export interface Chunk {
  readonly choiceIndex: number;
  /** JSON members: `"text":"…"`, `"delta":{…}`. */
  readonly payload: string;
  readonly logprobs?: unknown;
  readonly finishReason?: AnswerEnd;
  readonly stopReason?: string | number;
  readonly tokenIds?: readonly number[];
  /** Further JSON members of the choice and of the chunk, each with a leading comma. */
  readonly choiceMembers?: string;
  readonly chunkMembers?: string;
  readonly usage?: Usage;
}

export class ChunkFormat {
  readonly #head: string;
  readonly #fingerprint: string;

  constructor(answer: {
    id: string;
    object: string;
    created: number;
    model: string;
    systemFingerprint: string;
  }) {
    const { id, object, created, model, systemFingerprint } = answer;
    this.#head = `${JSON.stringify({ id, object, created, model }).slice(0, -1)},"choices":[`;
    this.#fingerprint = `,"system_fingerprint":${JSON.stringify(systemFingerprint)}`;
  }

  chunk(chunk: Chunk): string {
    const isLast = chunk.finishReason !== undefined;
    let json = `${this.#head}{"index":${chunk.choiceIndex},${chunk.payload},"logprobs":`;
    json += chunk.logprobs === undefined ? 'null' : JSON.stringify(chunk.logprobs);
    json += isLast
      ? `,"finish_reason":"${chunk.finishReason}","stop_reason":${JSON.stringify(chunk.stopReason ?? null)}`
      : ',"finish_reason":null';
    if (chunk.tokenIds !== undefined) json += `,"token_ids":[${chunk.tokenIds.join(',')}]`;
    json += `${chunk.choiceMembers ?? ''}}]${chunk.chunkMembers ?? ''}`;
    if (isLast) json += this.#fingerprint;
    if (chunk.usage !== undefined) json += `,"usage":${JSON.stringify(chunk.usage)}`;
    return `${json}}`;
  }

  /** The chunk after the last choice's last, with `stream_options.include_usage`. */
  usageChunk(usage: Usage, metrics: AnswerMetrics | undefined): string {
    const timings = metrics === undefined ? '' : `,"metrics":${JSON.stringify(metrics)}`;
    return `${this.#head}]${this.#fingerprint},"usage":${JSON.stringify(usage)}${timings}}`;
  }
}
