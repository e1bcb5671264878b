/** The default export of a logits processor's module: `tenon.logitsProcessors: [{ "name", "entry" }]`. */
export interface LogitsProcessorExtension {
  readonly create: (options: never) => unknown;
}
