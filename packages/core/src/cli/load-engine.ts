/** Loads a model for a command, and shows how far it is. */
import type { EngineOptions } from '../config/engine-options.js';
import type { EngineHost, LoadedEngine } from '../container.js';
import { startTimeoutMs, surveyBackends } from '../plugins/survey.js';
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
  const options = given as EngineOptions;
  return withSurvey(options, async (backends) => {
    const { createEngine } = await import('../container.js');
    return withProgress(log, (host) =>
      createEngine(
        model ?? findEmbeddedModel(),
        model === undefined ? { servedModelName: embeddedModelName, ...options } : options,
        { ...host, backends },
      ),
    );
  });
}

/** How the model would run, as text. */
export async function explainEngine(
  model: string | undefined,
  given: Readonly<Record<string, OptionValue>>,
  log: Log,
): Promise<string> {
  const options = given as EngineOptions;
  return withSurvey(options, async (backends) => {
    const { explainModel } = await import('../container.js');
    return withProgress(log, (host) =>
      explainModel(model ?? findEmbeddedModel(), options, { ...host, backends }),
    );
  });
}

type Backends = NonNullable<EngineHost['backends']>;

/** Probes the backends while the engine's code is read: a start is sooner ready by what a probe takes. */
async function withSurvey<T>(options: EngineOptions, work: (backends: Backends) => Promise<T>): Promise<T> {
  const { device = 'auto', plugins = [] } = options;
  const ending = new AbortController();
  const backends = surveyBackends({
    plugins,
    device,
    root: process.cwd(),
    env: process.env,
    timeoutMs: startTimeoutMs,
    signal: ending.signal,
  });
  // What is wrong with options and model is told first.
  backends.catch(() => {});
  try {
    return await work(backends);
  } finally {
    ending.abort();
  }
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
