/** The two ways to run the core: in a worker thread, which serving uses, and in this one, which tests use. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { asTenonError, TenonError } from '../errors.js';
import type { Checkpoint } from '../weights/checkpoint.js';
import type { ErrorData, FromCore, ToCore } from './core-messages.js';
import { startRuntime, type RuntimeHost, type RuntimeInfo, type RuntimeOptions } from './engine-runtime.js';
import { deafListener, type CoreLink, type CoreListener } from './link.js';
import { terminate } from './stuck-threads.js';

export interface StartedCore {
  readonly info: RuntimeInfo;
  readonly link: CoreLink;
}

/** What the worker thread is given. */
export interface EngineThreadData {
  readonly options: RuntimeOptions;
  readonly path: string;
  readonly locations: Checkpoint['locations'];
  readonly foreignDtypes: Checkpoint['foreignDtypes'];
}

export type FromThread =
  | FromCore
  | { readonly type: 'ready'; readonly info: RuntimeInfo }
  | { readonly type: 'start-failed'; readonly error: ErrorData }
  | { readonly type: 'progress'; readonly loadedBytes: number; readonly totalBytes: number }
  | { readonly type: 'log'; readonly level: 'debug' | 'info' | 'warn'; readonly message: string };

export type ToThread = ToCore | { readonly type: 'close' };

/** A start that `signal` gives up goes on here to its end, and is undone then. */
export async function startInProcess(
  options: RuntimeOptions,
  checkpoint: Checkpoint,
  host: RuntimeHost,
  signal?: AbortSignal,
): Promise<StartedCore> {
  let listener = deafListener;
  const runtime = await startRuntime(options, checkpoint, host, (message) => listener.message(message));
  const link: CoreLink = {
    send: (message) => runtime.receive(message),
    listen: (next) => {
      listener = next;
    },
    close: () => runtime.close(),
    abandon: (error) => {
      runtime.abandon();
      listener.died(error);
    },
  };
  if (signal?.aborted === true) {
    await runtime.close();
    throw signal.reason;
  }
  return { info: runtime.info, link };
}

/** A start that fails, or that `signal` gives up, leaves no thread behind, unless that hangs in the backend's code. */
export async function startInThread(
  options: RuntimeOptions,
  checkpoint: Checkpoint,
  host: RuntimeHost,
  signal?: AbortSignal,
): Promise<StartedCore> {
  const { path, locations, foreignDtypes } = checkpoint;
  const worker = new Worker(engineThreadEntry(), {
    workerData: { options, path, locations, foreignDtypes } satisfies EngineThreadData,
  });
  const link = new ThreadLink(worker, host);
  try {
    return { info: await link.start(signal), link };
  } catch (error) {
    link.abandon(asTenonError(error));
    await link.close();
    throw error;
  }
}

/** The built entry of the engine thread. */
function engineThreadEntry(): URL {
  const packageJson = createRequire(import.meta.url).resolve('@tenon/core/package.json');
  const file = join(dirname(packageJson), 'dist', 'engine', 'engine-thread.js');
  if (!existsSync(file))
    throw new TenonError('internal.engine-died', `${file} is missing; run npm run build`);
  return pathToFileURL(file);
}

class ThreadLink implements CoreLink {
  readonly #worker: Worker;
  readonly #host: RuntimeHost;
  /** The thread has ended, or cannot be made to. */
  readonly #ended: Promise<void>;
  #noteEnd: () => void = () => {};
  #listener: CoreListener = deafListener;
  #death: TenonError | undefined = undefined;
  #isEnding = false;

  constructor(worker: Worker, host: RuntimeHost) {
    this.#worker = worker;
    this.#host = host;
    this.#ended = new Promise((resolve) => (this.#noteEnd = resolve));
    let reason: string | undefined;
    worker.on('error', (error: Error) => (reason = error.message));
    // An error ends the thread; what it has said before arrives before its exit.
    worker.on('exit', (code) => {
      this.#noteEnd();
      this.#lose(reason ?? `it exited with code ${code}`);
    });
  }

  /** Resolves when the thread has loaded the model. */
  start(signal: AbortSignal | undefined): Promise<RuntimeInfo> {
    return new Promise((resolve, reject) => {
      this.#listener = { ...deafListener, died: reject };
      signal?.throwIfAborted();
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
      this.#worker.on('message', (message: FromThread) => {
        if (message.type === 'ready') resolve(message.info);
        else if (message.type === 'start-failed') reject(TenonError.fromJSON(message.error));
        else if (message.type === 'progress')
          this.#host.onProgress?.(message.loadedBytes, message.totalBytes);
        else if (message.type === 'log') this.#host.log(message.level, message.message);
        else this.#listener.message(message);
      });
    });
  }

  send(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  listen(listener: CoreListener): void {
    this.#listener = listener;
    if (this.#death !== undefined) listener.died(this.#death);
  }

  async close(): Promise<void> {
    this.#isEnding = true;
    this.send({ type: 'close' });
    await this.#ended;
  }

  abandon(error: TenonError): void {
    this.#isEnding = true;
    void terminate(this.#worker, this.#host).then(() => this.#noteEnd());
    this.#listener.died(error);
  }

  #lose(reason: string): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#death = new TenonError('internal.engine-died', `the engine thread died: ${reason}`);
    this.#listener.died(this.#death);
  }
}
