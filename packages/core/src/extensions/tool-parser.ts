/** The tool calls in an answer's text: `tenon.toolParsers: [{ "name", "entry" }]`. */

/** The default export of a tool parser's module. It runs in the server's thread. */
export interface ToolParserExtension {
  /** Calls are marked by special tokens: answers keep these as text then, which otherwise they leave out. */
  readonly keepsSpecialTokens?: boolean;
  /** Called for each choice of an answer that may call tools. */
  readonly create: (options: ToolParserOptions) => ToolParser;
}

export interface ToolParserOptions {
  /** The request's tools; a model may call others. */
  readonly tools: readonly Tool[];
}

export interface Tool {
  readonly type: 'function';
  readonly function: {
    readonly name: string;
    readonly description?: string;
    /** A JSON schema of the arguments. */
    readonly parameters?: object;
  };
}

/** Reads one answer. Whole answers and streams are read alike: what comes out may not depend on how the text is cut. */
export interface ToolParser {
  /** The next piece of the text, of any length; what became certain with it, in order. */
  push(text: string): readonly ToolDelta[];
  /** The text is over: what was held back. */
  finish(): readonly ToolDelta[];
}

export type ToolDelta =
  /** Text that belongs to no call. */
  | { readonly type: 'content'; readonly text: string }
  /** A call begins. */
  | { readonly type: 'call'; readonly name: string }
  /** More of the last call's arguments: JSON text, as the model wrote it. */
  | { readonly type: 'arguments'; readonly json: string };
