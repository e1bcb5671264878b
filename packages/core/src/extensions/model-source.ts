/** Where models come from, besides folders and the hub: `tenon.modelSources: [{ "scheme", "entry" }]`. */
import type { DownloadProgress } from '../weights/hub-download.js';

/** The default export of a model source's module. */
export interface ModelSource {
  /**
   * The model that `uri` (`<scheme>://…`, as the user wrote it) names, on this machine: a folder as Hugging Face lays it
   * out, or a GGUF file. The files are complete and checked by then. Throws an Error whose message says what to do.
   */
  readonly resolve: (uri: string, options: ModelSourceOptions) => Promise<ResolvedModel>;
}

export type ResolvedModel = { readonly folder: string } | { readonly file: string };

export interface ModelSourceOptions {
  /** `--revision`. */
  readonly revision: string | undefined;
  /** A folder for what is downloaded: `--download-dir`, or this source's own in the user's cache. It may not exist yet. */
  readonly cacheDir: string;
  /** Only the tokenizer's files are needed. */
  readonly tokenizerOnly: boolean;
  readonly onProgress: (progress: DownloadProgress) => void;
}
