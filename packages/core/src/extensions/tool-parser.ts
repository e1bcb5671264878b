/** The default export of a tool parser's module: `tenon.toolParsers: [{ "name", "entry" }]`. */
export interface ToolParserExtension {
  readonly create: (options: never) => unknown;
}
