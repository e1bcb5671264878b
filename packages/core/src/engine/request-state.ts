import type { TenonError } from '../errors.js';
import { SequenceOutput } from './sequence-output.js';
import type { GenerateRequest, Logprob, RequestMetrics, RequestOutput } from './types.js';
import type { Tokenizer } from '../tokenizer/types.js';

export interface RequestOptions {
  readonly firstSequenceId: number;
  readonly promptTokenIds: readonly number[];
  readonly tokenizer: Tokenizer | undefined;
  readonly eosTokenId: number | undefined;
  readonly arrivalMs: number;
}

/**
 * A request from its tokens to its end. Consumers take what is there when they come for it: a slow one gets larger
 * pieces, and nothing is queued for it.
 */
export class RequestState {
  readonly request: GenerateRequest;
  readonly firstSequenceId: number;
  readonly promptTokenIds: readonly number[];
  readonly sequences: readonly SequenceOutput[];
  readonly metrics: { -readonly [K in keyof RequestMetrics]: RequestMetrics[K] };
  numCachedTokens = 0;
  error: TenonError | undefined = undefined;
  isFinished = false;
  readonly #promptLogprobs: (Logprob[] | undefined)[] | undefined;
  #isPromptSeen = false;
  #numUnfinished: number;
  #hasNews = false;

  constructor(request: GenerateRequest, options: RequestOptions) {
    const { params } = request;
    this.request = request;
    this.firstSequenceId = options.firstSequenceId;
    this.promptTokenIds = options.promptTokenIds;
    this.sequences = Array.from(
      { length: params.n },
      (_, i) => new SequenceOutput(i, params, options.tokenizer, options.eosTokenId),
    );
    this.#numUnfinished = params.n;
    this.metrics = { arrivalMs: options.arrivalMs, scheduledMs: 0, firstTokenMs: 0, lastTokenMs: 0 };
    const numPromptTokens = options.promptTokenIds.length;
    if (params.promptLogprobs !== undefined)
      this.#promptLogprobs = Array.from({ length: numPromptTokens }, () => undefined);
  }

  get sequenceIds(): number[] {
    return this.sequences.map((_, i) => this.firstSequenceId + i);
  }

  get numGenerationTokens(): number {
    return this.sequences.reduce((sum, sequence) => sum + sequence.tokenIds.length, 0);
  }

  setPromptLogprobs(position: number, logprobs: Logprob[]): void {
    if (this.#promptLogprobs !== undefined) this.#promptLogprobs[position] = logprobs;
  }

  /** Something for the consumer has come in. */
  noteNews(): void {
    this.#hasNews = true;
  }

  /** One of its sequences has ended; true if it was the last. */
  noteSequenceEnd(): boolean {
    this.#hasNews = true;
    this.#numUnfinished--;
    if (this.#numUnfinished === 0) this.isFinished = true;
    return this.isFinished;
  }

  abort(): void {
    for (const sequence of this.sequences) sequence.abort();
    this.isFinished = true;
    this.#hasNews = true;
  }

  /** The next output for the consumer; undefined when there is none yet. */
  takeOutput(): RequestOutput | undefined {
    if (!this.#hasNews) return undefined;
    const { outputKind } = this.request.params;
    if (outputKind === 'final' && !this.isFinished) return undefined;
    const outputs =
      outputKind === 'delta'
        ? this.sequences.map((sequence) => sequence.takeDelta()).filter((output) => output !== undefined)
        : this.sequences.map((sequence) => sequence.cumulative());
    this.#hasNews = false;
    const promptLogprobs = this.#isPromptSeen ? undefined : this.#promptLogprobs;
    this.#isPromptSeen = true;
    return {
      requestId: this.request.requestId,
      promptTokenIds: this.promptTokenIds,
      promptLogprobs,
      outputs,
      finished: this.isFinished,
      numCachedTokens: this.numCachedTokens,
      metrics: { ...this.metrics },
    };
  }
}
