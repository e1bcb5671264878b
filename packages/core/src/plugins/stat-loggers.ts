/** Stat loggers of packages, each in a thread of its own: what one does wrong is said once, and serving goes on. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { TenonError } from '../errors.js';
import type { StatReport } from '../extensions/index.js';
import { findExtension, invalid, type Extension } from './extensions.js';
import type { FromStatLogger, StatLoggerThreadData, ToStatLogger } from './stat-logger-messages.js';

type FoundLogger = StatLoggerThreadData['extension'];
type Warn = (message: string) => void;

const startTimeoutMs = 10_000;
const closeTimeoutMs = 1000;
/** A logger that fills its memory ends alone. */
const maxHeapMiB = 256;

export interface StatLoggers {
  log(report: StatReport): void;
  /** Waits a second at most. */
  close(): Promise<void>;
}

/**
 * Starts the loggers that the user names, as `name` or `name=argument`.
 * @throws `config.extension-not-found` or `config.extension-invalid` where one cannot be started; none runs then.
 */
export async function startStatLoggers(
  words: readonly string[],
  extensions: readonly Extension[],
  warn: Warn,
): Promise<StatLoggers> {
  const wanted = words.map((word) => {
    const [name = '', argument] = splitOnce(word, '=');
    const extension = findExtension('statLoggers', name, extensions) as FoundLogger;
    return { extension, argument };
  });
  const loggers = wanted.map((data) => new LoggerThread(data, warn));
  const close = async (): Promise<void> => void (await Promise.all(loggers.map((logger) => logger.close())));
  try {
    await Promise.all(loggers.map((logger) => logger.started));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    log: (report) => {
      for (const logger of loggers) logger.log(report);
    },
    close,
  };
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at === -1 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

class LoggerThread {
  /** Rejects where the logger cannot be made. */
  readonly started: Promise<void>;
  readonly #extension: FoundLogger;
  readonly #warn: Warn;
  readonly #worker: Worker;
  readonly #exited: Promise<void>;
  readonly #said = new Set<string>();
  #isRunning = false;
  #isBusy = false;

  constructor(data: StatLoggerThreadData, warn: Warn) {
    this.#extension = data.extension;
    this.#warn = warn;
    const resourceLimits = { maxOldGenerationSizeMb: maxHeapMiB };
    this.#worker = new Worker(threadEntry(), { workerData: data, resourceLimits });
    this.#exited = new Promise((resolve) => this.#worker.once('exit', () => resolve()));
    this.started = this.#start();
    // A process that has nothing else to do may end.
    this.#worker.unref();
  }

  #start(): Promise<void> {
    return new Promise((resolve, reject) => {
      const lose = (reason: string): void => {
        clearTimeout(timer);
        reject(invalid(this.#extension, reason));
        this.#lose(reason);
      };
      const timer = setTimeout(lose, startTimeoutMs, `it did not start within ${startTimeoutMs / 1000} s`);
      this.#worker.on('error', (error: Error) => lose(`its thread failed: ${error.message}`));
      this.#worker.on('exit', () => lose('its thread has ended'));
      this.#worker.on('message', (message: FromStatLogger) => {
        if (message.type === 'logged') return this.#logged(message.error);
        clearTimeout(timer);
        if (message.type === 'unusable') return reject(TenonError.fromJSON(message.error));
        this.#isRunning = true;
        resolve();
      });
    });
  }

  log(report: StatReport): void {
    if (!this.#isRunning) return;
    if (this.#isBusy) return this.#sayOnce('slow', 'it is slower than reports come; some are left out');
    this.#isBusy = true;
    this.#worker.postMessage({ type: 'log', report } satisfies ToStatLogger);
  }

  async close(): Promise<void> {
    this.#isRunning = false;
    this.#worker.postMessage({ type: 'close' } satisfies ToStatLogger);
    const timer = setTimeout(() => void this.#worker.terminate(), closeTimeoutMs);
    await this.#exited;
    clearTimeout(timer);
  }

  #logged(error: string | undefined): void {
    this.#isBusy = false;
    if (error !== undefined) this.#sayOnce('failed', `it failed: ${error}`);
  }

  #lose(reason: string): void {
    if (this.#isRunning) this.#sayOnce('lost', `${reason}; it gets no more reports`);
    this.#isRunning = false;
  }

  #sayOnce(kind: string, what: string): void {
    if (this.#said.has(kind)) return;
    this.#said.add(kind);
    const { name, packageName } = this.#extension;
    this.#warn(`stat logger '${name}' of ${packageName}: ${what}`);
  }
}

/** The built entry of a logger's thread. */
function threadEntry(): URL {
  const packageJson = createRequire(import.meta.url).resolve('@tenon/core/package.json');
  const file = join(dirname(packageJson), 'dist', 'plugins', 'stat-logger-thread.js');
  if (!existsSync(file))
    throw new TenonError('internal.engine-died', `${file} is missing; run npm run build`);
  return pathToFileURL(file);
}
