/** Tokenizes long texts in a worker thread, so that the event loop goes on. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { TenonError } from '../errors.js';
import type { TokenizerSource } from '../weights/checkpoint.js';

export interface EncodeRequest {
  readonly id: number;
  readonly text: string;
  readonly addSpecialTokens: boolean;
}

export type EncodeResponse =
  | { readonly id: number; readonly tokenIds: Uint32Array }
  | { readonly id: number; readonly error: ReturnType<TenonError['toJSON']> };

interface Waiting {
  resolve(tokenIds: number[]): void;
  reject(error: TenonError): void;
}

/** Starts with the first long text, keeps the process alive only while it works, and starts again after a crash. */
export class EncodeThread {
  readonly #source: TokenizerSource;
  readonly #entry: URL;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #nextId = 0;
  #closed = false;

  constructor(source: TokenizerSource, entry: URL) {
    this.#source = source;
    this.#entry = entry;
  }

  encode(text: string, addSpecialTokens: boolean): Promise<number[]> {
    if (this.#closed) return Promise.reject(closedError());
    const worker = (this.#worker ??= this.#start());
    const id = this.#nextId++;
    return new Promise<number[]>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.ref();
      worker.postMessage({ id, text, addSpecialTokens } satisfies EncodeRequest);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    const worker = this.#worker;
    this.#worker = undefined;
    this.#failAll(closedError());
    await worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(this.#entry, { workerData: this.#source });
    worker.on('message', (response: EncodeResponse) => this.#settle(worker, response));
    worker.on('error', (error: Error) => this.#lose(worker, error.message));
    worker.on('exit', (code) => this.#lose(worker, `it exited with code ${code}`));
    return worker;
  }

  #settle(worker: Worker, response: EncodeResponse): void {
    const waiting = this.#waiting.get(response.id);
    this.#waiting.delete(response.id);
    if (this.#waiting.size === 0) worker.unref();
    if ('error' in response) waiting?.reject(TenonError.fromJSON(response.error));
    else waiting?.resolve(Array.from(response.tokenIds));
  }

  #lose(worker: Worker, reason: string): void {
    if (worker !== this.#worker) return;
    this.#worker = undefined;
    this.#failAll(new TenonError('internal.invariant', `the tokenizer thread died: ${reason}`));
  }

  #failAll(error: TenonError): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }
}

function closedError(): TenonError {
  return new TenonError('capacity.shutting-down', 'the tokenizer is closed');
}

/** The built entry of the thread; undefined where the package runs from its sources without a build. */
export function encodeThreadEntry(): URL | undefined {
  const packageJson = createRequire(import.meta.url).resolve('@tenon/core/package.json');
  const file = join(dirname(packageJson), 'dist', 'tokenizer', 'tokenizer-thread.js');
  return existsSync(file) ? pathToFileURL(file) : undefined;
}
