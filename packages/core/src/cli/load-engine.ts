/** Loads a model for a command, with progress bars where a person is watching. */
import type { EngineOptions } from '../config/engine-options.js';
import type { EngineHost, LoadedEngine } from '../container.js';
import { embeddedModelName, findEmbeddedModel } from './embedded-model.js';
import type { OptionValue } from './option-values.js';

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
  const progress = process.stderr.isTTY ? await createProgress() : undefined;
  try {
    return await work({
      log,
      onLoadProgress: progress && ((loaded, total) => progress.show('loading', loaded, total)),
      onDownloadProgress:
        progress && (({ file, receivedBytes, totalBytes }) => progress.show(file, receivedBytes, totalBytes)),
    });
  } finally {
    progress?.stop();
  }
}

interface Progress {
  show(name: string, done: number, total: number): void;
  stop(): void;
}

const mib = 2 ** 20;

async function createProgress(): Promise<Progress> {
  const { MultiBar, Presets } = (await import('cli-progress')).default;
  const bars = new MultiBar(
    { clearOnComplete: true, hideCursor: true, format: '{name} {bar} {percentage}% of {totalMib} MiB' },
    Presets.shades_classic,
  );
  const byName = new Map<string, ReturnType<typeof bars.create>>();
  return {
    show(name, done, total) {
      if (!byName.has(name))
        byName.set(name, bars.create(total, done, { name, totalMib: (total / mib).toFixed(1) }));
      byName.get(name)?.update(done);
    },
    stop: () => bars.stop(),
  };
}
