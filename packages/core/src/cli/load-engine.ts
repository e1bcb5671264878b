/** Loads a model for a command, and shows how far it is. */
import type { EngineOptions } from '../config/engine-options.js';
import type { EngineHost, LoadedEngine } from '../container.js';
import { embeddedModelName, findEmbeddedModel } from './embedded-model.js';
import type { OptionValue } from './option-values.js';
import { progressBars, progressLines } from './progress.js';

type Log = NonNullable<EngineHost['log']>;

/** `model` undefined: the embedded one, under its name. */
export async function loadEngine(
  model: string | undefined,
  given: Readonly<Record<string, OptionValue>>,
  log: Log,
): Promise<LoadedEngine> {
  const { createEngine } = await import('../container.js');
  const options = given as EngineOptions;
  return withProgress(log, (host) =>
    createEngine(
      model ?? findEmbeddedModel(),
      model === undefined ? { servedModelName: embeddedModelName, ...options } : options,
      host,
    ),
  );
}

/** How the model would run, as text. */
export async function explainEngine(
  model: string | undefined,
  given: Readonly<Record<string, OptionValue>>,
  log: Log,
): Promise<string> {
  const { explainModel } = await import('../container.js');
  return withProgress(log, (host) =>
    explainModel(model ?? findEmbeddedModel(), given as EngineOptions, host),
  );
}

export async function withProgress<T>(log: Log, work: (host: EngineHost) => Promise<T>): Promise<T> {
  const progress = process.stderr.isTTY ? await progressBars() : progressLines((line) => log('info', line));
  try {
    return await work({
      log,
      onLoadProgress: (loaded, total) => progress.show('loading', loaded, total),
      onDownloadProgress: ({ file, receivedBytes, totalBytes }) =>
        progress.show(file, receivedBytes, totalBytes),
    });
  } finally {
    progress.stop();
  }
}
