/** Text in, token ids out, and back. */
export interface Tokenizer {
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  /** The model's own end token as the tokenizer names it. */
  readonly eosTokenId: number | undefined;
  /** The chat template (Jinja) that came with the model. */
  readonly chatTemplate: string | undefined;
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): number[];
  /** As encode; long texts are tokenized in a worker thread. */
  encodeAsync(text: string, options?: { readonly addSpecialTokens?: boolean }): Promise<number[]>;
  decode(tokenIds: readonly number[], options?: { readonly skipSpecialTokens?: boolean }): string;
  /** The token as the vocabulary spells it; undefined outside the vocabulary. */
  idToToken(tokenId: number): string | undefined;
  tokenToId(token: string): number | undefined;
  isSpecial(tokenId: number): boolean;
  /** The bytes that a token stands for, alone. */
  tokenBytes(tokenId: number): Uint8Array;
  incremental(options: { readonly skipSpecialTokens: boolean }): IncrementalDetokenizer;
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatTemplateOptions): string;
  close(): Promise<void>;
}

/** Text of a growing sequence; never splits a UTF-8 character, and `push…` + `flush` joined equal `decode` of all. */
export interface IncrementalDetokenizer {
  /** The text that became certain with these tokens. */
  push(tokenIds: readonly number[]): string;
  /** What was still held back. */
  flush(): string;
}

export interface ChatMessage {
  readonly role: string;
  readonly content: string | readonly { readonly type: 'text'; readonly text: string }[] | null;
  readonly [extra: string]: unknown;
}

export interface ChatTemplateOptions {
  /** Overrides the model's. */
  readonly chatTemplate?: string;
  readonly addGenerationPrompt?: boolean;
  readonly continueFinalMessage?: boolean;
  readonly tools?: readonly unknown[];
  readonly documents?: readonly unknown[];
  /** Further template variables. */
  readonly kwargs?: Readonly<Record<string, unknown>>;
}
