/** The two ways to run the core: in a worker thread, which serving uses, and in this one, which tests use. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { TenonError } from '../errors.js';
import type { Checkpoint } from '../weights/checkpoint.js';
import type { ErrorData, FromCore, ToCore } from './core-messages.js';
import type { CoreLink } from './engine-client.js';
import { startRuntime, type RuntimeHost, type RuntimeInfo, type RuntimeOptions } from './engine-runtime.js';

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

export async function startInProcess(
  options: RuntimeOptions,
  checkpoint: Checkpoint,
  host: RuntimeHost,
): Promise<StartedCore> {
  let onMessage: (message: FromCore) => void = () => {};
  const runtime = await startRuntime(options, checkpoint, host, (message) => onMessage(message));
  const link: CoreLink = {
    send: (message) => runtime.receive(message),
    listen: (listener) => {
      onMessage = listener;
    },
    close: () => runtime.close(),
    abandon: () => runtime.abandon(),
  };
  return { info: runtime.info, link };
}

export function startInThread(
  options: RuntimeOptions,
  checkpoint: Checkpoint,
  host: RuntimeHost,
): Promise<StartedCore> {
  const { path, locations, foreignDtypes } = checkpoint;
  const worker = new Worker(engineThreadEntry(), {
    workerData: { options, path, locations, foreignDtypes } satisfies EngineThreadData,
  });
  return new ThreadLink(worker).start(host);
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
  readonly #exited: Promise<void>;
  #onMessage: (message: FromCore) => void = () => {};
  #onDeath: (error: TenonError) => void = () => {};
  #isClosing = false;

  constructor(worker: Worker) {
    this.#worker = worker;
    this.#exited = new Promise((resolve) => worker.once('exit', () => resolve()));
  }

  /** Resolves when the thread has loaded the model. */
  start(host: RuntimeHost): Promise<StartedCore> {
    return new Promise((resolve, reject) => {
      this.#onDeath = reject;
      this.#worker.on('message', (message: FromThread) => {
        if (message.type === 'ready') resolve({ info: message.info, link: this });
        else if (message.type === 'start-failed') reject(TenonError.fromJSON(message.error));
        else if (message.type === 'progress') host.onProgress?.(message.loadedBytes, message.totalBytes);
        else if (message.type === 'log') host.log(message.level, message.message);
        else this.#onMessage(message);
      });
      this.#worker.on('error', (error: Error) => this.#lose(error.message));
      this.#worker.on('exit', (code) => this.#lose(`it exited with code ${code}`));
    });
  }

  send(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  listen(onMessage: (message: FromCore) => void, onDeath: (error: TenonError) => void): void {
    this.#onMessage = onMessage;
    this.#onDeath = onDeath;
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.send({ type: 'close' });
    await this.#exited;
  }

  abandon(): void {
    this.#isClosing = true;
    void this.#worker.terminate();
  }

  #lose(reason: string): void {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#onDeath(new TenonError('internal.engine-died', `the engine thread died: ${reason}`));
  }
}
