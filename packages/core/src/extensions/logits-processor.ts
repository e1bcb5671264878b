/**
 * What may come next, by a rule of one's own: `tenon.logitsProcessors: [{ "name", "entry" }]`. Logits stay on the device, so a
 * processor never sees them: before each token it says, as data, which tokens may come and what is added to their logits.
 */

/**
 * The default export of a logits processor's module. It runs in the engine's thread, between steps: what it takes there, every
 * request waits for.
 */
export interface LogitsProcessorExtension {
  /** The extra arguments that it reads (`vllm_xargs` of a request, `extraArgs` in the library); unread ones are refused. */
  readonly args: readonly string[];
  /** Throws an Error that says what is wrong with the arguments; the client gets its message as a 400. */
  readonly validate?: (args: ExtraArgs, context: LogitsProcessorContext) => void;
  /** Called for each sequence of every request, before its first token. Undefined: this one goes without, at no cost. */
  readonly create: (args: ExtraArgs, context: LogitsProcessorContext) => LogitsProcessor | undefined;
}

/** A processor at work on one sequence. */
export interface LogitsProcessor {
  /**
   * Called once before each token, with the output tokens so far: none at first. Tokens are never taken back, so it may keep
   * state. Undefined: no changes. What it throws, or answers wrongly, fails the request.
   */
  next(outputTokenIds: readonly number[]): LogitsEdits | undefined;
}

/** A request's extra arguments: JSON values. */
export type ExtraArgs = Readonly<Record<string, unknown>>;

export type TokenList = readonly number[] | Int32Array;

/** Changes to the logits of one token, besides the request's own. */
export interface LogitsEdits {
  /** Only these may come, and of those only what the request's `allowed_token_ids` and other processors allow. */
  readonly allowed?: TokenList;
  /** These may not come. */
  readonly suppress?: TokenList;
  /** Added to the logits of tokens, on top of the request's `logit_bias`. */
  readonly bias?: readonly (readonly [tokenId: number, value: number])[];
}

export interface LogitsProcessorContext {
  /** Token ids are below this. */
  readonly vocabSize: number;
  readonly promptTokenIds: readonly number[];
  /** Tokens that end the answer. */
  readonly endTokenIds: readonly number[];
  /** Tokens that the answer may have. */
  readonly maxTokens: number;
  /** Tokens before which nothing ends it. */
  readonly minTokens: number;
  /** Number of the sequence among the request's `n`. */
  readonly sequenceIndex: number;
  /** What tokens are as text, the same object for all requests; undefined where the engine runs without a tokenizer. */
  readonly vocabulary: Vocabulary | undefined;
}

export interface Vocabulary {
  /** The bytes that a token stands for, which may be part of a character; none for ids that the tokenizer lacks. */
  bytesOf(tokenId: number): Uint8Array;
  /** Those bytes as text. */
  textOf(tokenId: number): string;
  /** Whether it is a marker, such as the end of a message, and not text. */
  isSpecial(tokenId: number): boolean;
}
