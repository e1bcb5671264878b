/** What installed packages add to the opening of a checkpoint: models and model sources. */
import { stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { asTenonError, TenonError } from '../errors.js';
import type { ModelSourceOptions, ResolvedModel } from '../extensions/index.js';
import type { DownloadOptions } from '../weights/hub-model.js';
import type { CheckpointExtensions } from '../weights/open-checkpoint.js';
import { findExtension, importExtension, invalid, type Extension } from './extensions.js';
import { findModelExtension, loadModelExtension } from './model-extensions.js';

export function checkpointExtensions(
  extensions: readonly Extension[],
  warn: (message: string) => void,
): CheckpointExtensions {
  const warned = new Set<string>();
  const warnOnce = (message: string): void => {
    if (!warned.has(message)) warn(message);
    warned.add(message);
  };
  return {
    async findModel(architectures, raw, source) {
      const extension = findModelExtension(architectures, extensions, warnOnce);
      if (extension === undefined) return undefined;
      const origin = { extension, raw, source };
      return { origin, model: await loadModelExtension(origin) };
    },
    fetchModel: (scheme, uri, options) => fetchModel(scheme, uri, options, extensions),
  };
}

/** @throws `config.extension-*`, or `config.download-failed` with the source's reason. */
async function fetchModel(
  scheme: string,
  uri: string,
  options: DownloadOptions,
  extensions: readonly Extension[],
): Promise<string> {
  const extension = findExtension('modelSources', scheme, extensions);
  const source = await importExtension({ ...extension, kind: 'modelSources' });
  let resolved: ResolvedModel;
  try {
    resolved = await source.resolve(uri, sourceOptions(scheme, options));
  } catch (error) {
    throw downloadFailed(extension, uri, error);
  }
  return checkedPath(extension, uri, resolved);
}

function sourceOptions(scheme: string, options: DownloadOptions): ModelSourceOptions {
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  return {
    revision: options.revision,
    cacheDir: options.downloadDir ?? join(cache, 'tenon', scheme),
    tokenizerOnly: options.tokenizerOnly ?? false,
    onProgress: (progress) => options.onProgress?.(progress),
  };
}

/** An error of ours says more than this would. */
function downloadFailed(extension: Extension, uri: string, error: unknown): TenonError {
  const known = asTenonError(error);
  if (known.code !== 'internal.invariant') return known;
  // `fetch` says what happened in its error's cause.
  const cause = error instanceof Error ? error.cause : undefined;
  const why = cause instanceof Error ? `${known.message}: ${cause.message}` : known.message;
  return new TenonError(
    'config.download-failed',
    `${uri}: model source '${extension.name}' of ${extension.packageName}: ${why}`,
    { param: 'model', cause: error },
  );
}

async function checkedPath(extension: Extension, uri: string, resolved: unknown): Promise<string> {
  const { folder, file } = (resolved ?? {}) as Readonly<Record<string, unknown>>;
  const path = folder ?? file;
  const expected = `its resolve gave ${JSON.stringify(resolved)} for ${uri}; expected { folder } or { file } with the absolute path`;
  if (typeof path !== 'string' || !isAbsolute(path)) throw invalid(extension, expected);
  const found = await stat(path).catch(() => undefined);
  const fits = folder === undefined ? found?.isFile() : found?.isDirectory();
  if (fits !== true) throw invalid(extension, `${expected} of one that is there`);
  return path;
}
