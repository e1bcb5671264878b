import { endsInRepetition } from '../sampling/repetition.js';
import { StopStringScanner } from '../sampling/stop-strings.js';
import type { SamplingParams } from '../sampling/sampling-params.js';
import type { EndReason } from '../scheduler/scheduler.js';
import type { IncrementalDetokenizer, Tokenizer } from '../tokenizer/types.js';
import type { CompletionOutput, FinishReason, Logprob } from './types.js';

/** What one sequence has produced: tokens, their text, how it ended; and how much of it the consumer has seen. */
export class SequenceOutput {
  readonly tokenIds: number[] = [];
  readonly #index: number;
  readonly #params: SamplingParams;
  readonly #eosTokenId: number | undefined;
  readonly #detokenizer: IncrementalDetokenizer | undefined;
  readonly #scanner: StopStringScanner | undefined;
  /** Text is made when it is asked for, unless stop strings must be found in it at once. */
  readonly #isLazy: boolean;
  #text = '';
  #numDetokenized = 0;
  readonly #logprobs: Logprob[][] = [];
  #finishReason: FinishReason | undefined = undefined;
  #stopReason: string | number | undefined = undefined;
  /** What the last `takeDelta` had given out. */
  #seenText = 0;
  #seenTokens = 0;
  #seenEnd = false;

  constructor(
    index: number,
    params: SamplingParams,
    tokenizer: Tokenizer | undefined,
    eosTokenId: number | undefined,
  ) {
    this.#index = index;
    this.#params = params;
    this.#eosTokenId = params.ignoreEos ? undefined : eosTokenId;
    if (params.detokenize)
      this.#detokenizer = tokenizer?.incremental({ skipSpecialTokens: params.skipSpecialTokens });
    if (params.stop.length > 0)
      this.#scanner = new StopStringScanner(params.stop, params.includeStopStrInOutput);
    this.#isLazy = this.#scanner === undefined;
  }

  get finishReason(): FinishReason | undefined {
    return this.#finishReason;
  }

  /** Takes the next token; true if it completed a stop string or a repetition, which the core cannot know. */
  push(tokenId: number, end: EndReason | undefined, logprobs: Logprob[] | undefined): boolean {
    this.tokenIds.push(tokenId);
    if (logprobs !== undefined) this.#logprobs.push(logprobs);
    if (end === 'stop' && tokenId !== this.#eosTokenId) this.#stopReason = tokenId;
    if (!this.#isLazy || end !== undefined) this.#detokenize(end === 'stop');
    if (this.#finishReason !== undefined) return end === undefined;
    if (end !== undefined) this.#finish(end);
    return end === undefined && this.#endsInRepetition();
  }

  #endsInRepetition(): boolean {
    const { repetitionDetection, minTokens } = this.#params;
    if (repetitionDetection === undefined || this.tokenIds.length < minTokens) return false;
    if (!endsInRepetition(this.tokenIds, repetitionDetection)) return false;
    this.#detokenize(false);
    this.#finish('repetition');
    this.#stopReason ??= 'repetition_detected';
    return true;
  }

  /** Ends it where it is. */
  abort(): void {
    if (this.#finishReason !== undefined) return;
    this.#detokenize(false);
    if (this.#finishReason === undefined) this.#finish('abort');
  }

  /** What is new since the last call, if anything. */
  takeDelta(): CompletionOutput | undefined {
    const isEndNew = this.#finishReason !== undefined && !this.#seenEnd;
    if (this.#seenTokens === this.tokenIds.length && !isEndNew) return undefined;
    this.#detokenize(false);
    const output = this.#output(this.#seenText, this.#seenTokens);
    this.#seenText = this.#text.length;
    this.#seenTokens = this.tokenIds.length;
    this.#seenEnd = this.#finishReason !== undefined;
    return output;
  }

  /** All so far. */
  cumulative(): CompletionOutput {
    this.#detokenize(false);
    return this.#output(0, 0);
  }

  #output(fromText: number, fromToken: number): CompletionOutput {
    return {
      index: this.#index,
      text: this.#text.slice(fromText),
      tokenIds: this.tokenIds.slice(fromToken),
      logprobs: this.#params.logprobs === undefined ? undefined : this.#logprobs.slice(fromToken),
      finishReason: this.#finishReason,
      stopReason: this.#stopReason,
    };
  }

  /** Brings the text up to date. The text of a stop token is left out, unless it was asked for. */
  #detokenize(endsInStopToken: boolean): void {
    if (this.#detokenizer === undefined || this.#finishReason !== undefined) return;
    const keepsStopToken = this.#params.includeStopStrInOutput || !endsInStopToken;
    const end = keepsStopToken ? this.tokenIds.length : this.tokenIds.length - 1;
    if (this.#numDetokenized < end)
      this.#append(this.#detokenizer.push(this.tokenIds.slice(this.#numDetokenized, end)));
    this.#numDetokenized = this.tokenIds.length;
  }

  /** Stop strings count in text after the first minTokens tokens. */
  #append(text: string): void {
    if (this.#scanner === undefined || this.tokenIds.length <= this.#params.minTokens) {
      this.#text += text;
      return;
    }
    const scan = this.#scanner.push(text);
    this.#text += scan.text;
    if (scan.stop !== undefined) this.#stopAt(scan.stop);
  }

  #stopAt(stop: string): void {
    this.#finishReason = 'stop';
    this.#stopReason = stop;
  }

  #finish(reason: FinishReason): void {
    this.#append(this.#detokenizer?.flush() ?? '');
    if (this.#finishReason !== undefined) return;
    this.#text += this.#scanner?.flush() ?? '';
    this.#finishReason = reason;
  }
}
