/** How a hub's model is named and asked for. Apart from hub.ts, so that local models do not wait for the hub's library. */
import type { DownloadProgress } from './hub-download.js';

export interface DownloadOptions {
  /** Branch, tag or commit; `main` by default. */
  readonly revision?: string;
  /** The cache's folder, instead of HF_HUB_CACHE's. */
  readonly downloadDir?: string;
  /** Leave the weights where they are. */
  readonly tokenizerOnly?: boolean;
  readonly onProgress?: (progress: DownloadProgress) => void;
  /** Told where the hub could not be asked and the cache's copy serves instead. */
  readonly onNotice?: (message: string) => void;
}

export interface HubModel {
  readonly id: string;
  /** The GGUF file, or a part of its name (`Q4_K_M`). */
  readonly gguf: string | undefined;
}

/** `s3` of `s3://bucket/name`. */
export function schemeOf(model: string): string | undefined {
  return /^([a-z][a-z0-9+.-]+):\/\//.exec(model)?.[1];
}

const idPart = '[A-Za-z0-9][A-Za-z0-9._-]*';
const modelPattern = new RegExp(`^(${idPart}/${idPart})(?::([^/\\\\]+))?$`);

/** `org/name`, `org/name:file.gguf` or `org/name:Q4_K_M`; undefined for anything else. */
export function parseHubModel(model: string): HubModel | undefined {
  const [, id, gguf] = modelPattern.exec(model) ?? [];
  if (id === undefined || id.includes('..') || id.includes('--') || id.endsWith('.gguf')) return undefined;
  return { id, gguf };
}
