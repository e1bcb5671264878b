import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from '../backend/index.js';
import { asTenonError, TenonError } from '../errors.js';
import { monotonicMs } from './clock.js';
import type { CoreRequest, FromCore, ToCore } from './core-messages.js';
import { endsWithin } from './ends-within.js';
import { deafListener, type CoreLink, type CoreListener } from './link.js';
import { numScheduledTokensOf } from './output-records.js';

export interface RestartOptions {
  /** For people. */
  readonly device: string;
  /** Starts a core of the same sizes. A start that the signal gives up is rejected and leaves nothing behind. */
  readonly start: (signal: AbortSignal) => Promise<CoreLink>;
  readonly log: Host['log'];
  /** Milliseconds before each attempt; there are no more attempts than entries until a core ends a step. */
  readonly delaysMs?: readonly number[];
  /** Milliseconds that a lost core has to free the device, and as many again once it is abandoned. */
  readonly releaseTimeoutMs?: number;
}

const defaultDelaysMs = [0, 1000, 2000, 4000, 8000];
const defaultReleaseTimeoutMs = 2500;

/**
 * A link that outlives its core: when that is lost, another is started. Requests that no step has begun are kept and sent
 * to the next core in their order, with their sequence ids; of what a step has begun, it is unknown how far the client has read, so
 * that fails. A request that makes the device fail is therefore never tried twice.
 */
export class RestartingLink implements CoreLink {
  readonly #options: RestartOptions;
  readonly #delaysMs: readonly number[];
  /** By each of their sequence ids, in the order of arrival. */
  readonly #queued = new Map<number, CoreRequest>();
  readonly #ending = new AbortController();
  #listener: CoreListener = deafListener;
  /** What each core is told first. */
  #vocabulary: ToCore | undefined = undefined;
  /** Undefined from a loss to the next core. */
  #core: CoreLink | undefined = undefined;
  #restart: Promise<void> = Promise.resolve();
  /** Attempts since a core has ended a step. */
  #numAttempts = 0;

  constructor(core: CoreLink, options: RestartOptions) {
    this.#options = options;
    this.#delaysMs = options.delaysMs ?? defaultDelaysMs;
    this.#attach(core);
  }

  listen(listener: CoreListener): void {
    this.#listener = listener;
  }

  send(message: ToCore): void {
    if (message.type === 'add') this.#keep(message.request);
    else if (message.type === 'end') this.#forget(message.sequenceIds);
    else if (message.type === 'vocabulary') this.#vocabulary = message;
    if (this.#core !== undefined) this.#core.send(message);
    // The next core begins with nothing cached.
    else if (message.type === 'reset-prefix-cache')
      this.#listener.message({ type: 'prefix-cache-reset', ticket: message.ticket });
  }

  /** Gives up a restart that is under way. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.#restart;
    await this.#core?.close();
  }

  abandon(error: TenonError): void {
    this.#lose(error, { hangs: true });
  }

  #keep(request: CoreRequest): void {
    for (let i = 0; i < request.n; i++) this.#queued.set(request.firstSequenceId + i, request);
  }

  /** With one of a request's sequences, all of it. */
  #forget(sequenceIds: readonly number[]): void {
    for (const id of sequenceIds) {
      const request = this.#queued.get(id);
      if (request === undefined) continue;
      for (let i = 0; i < request.n; i++) this.#queued.delete(request.firstSequenceId + i);
    }
  }

  #attach(core: CoreLink): void {
    this.#core = core;
    core.listen({
      ...deafListener,
      message: (message) => this.#receive(message),
      died: (error) => this.#lose(error, { hangs: false }),
    });
  }

  #receive(message: FromCore): void {
    if (message.type === 'begun') this.#forget(message.sequenceIds);
    else if (message.type === 'failed' && message.fatal)
      this.#lose(TenonError.fromJSON(message.error), { hangs: false });
    else {
      if (message.type === 'outputs' && numScheduledTokensOf(message.records) > 0) this.#numAttempts = 0;
      this.#listener.message(message);
    }
  }

  #lose(error: TenonError, { hangs }: { readonly hangs: boolean }): void {
    const lost = this.#core;
    if (lost === undefined) return;
    lost.listen(deafListener);
    if (this.#ending.signal.aborted) {
      if (hangs) lost.abandon(error);
      this.#listener.died(error);
      return;
    }
    this.#core = undefined;
    this.#listener.lost(error, (firstSequenceId) => this.#queued.has(firstSequenceId));
    const numKept = new Set(this.#queued.values()).size;
    this.#options.log('warn', `the engine restarts, ${numKept} requests wait for it: ${error.message}`);
    this.#restart = this.#startAgain(lost, error, hangs);
  }

  /** Never rejects. */
  async #startAgain(lost: CoreLink, loss: TenonError, hangs: boolean): Promise<void> {
    const startMs = monotonicMs();
    await this.#release(lost, loss, hangs);
    const core = await this.#startCore(loss);
    if (core === undefined) return;
    this.#attach(core);
    if (this.#vocabulary !== undefined) core.send(this.#vocabulary);
    for (const request of new Set(this.#queued.values())) core.send({ type: 'add', request });
    const seconds = ((monotonicMs() - startMs) / 1000).toFixed(1);
    this.#options.log('info', `the engine is back on ${this.#options.device} after ${seconds} s`);
    this.#listener.recovered();
  }

  /** A hung core may hold the device for ever; the next one is started all the same. */
  async #release(lost: CoreLink, loss: TenonError, hangs: boolean): Promise<void> {
    const timeoutMs = this.#options.releaseTimeoutMs ?? defaultReleaseTimeoutMs;
    if (!hangs && (await endsWithin(lost.close(), timeoutMs))) return;
    lost.abandon(loss);
    await endsWithin(lost.close(), timeoutMs);
  }

  /** Undefined: there is none to be had, which the listener then knows, or none is wanted any more. */
  async #startCore(loss: TenonError): Promise<CoreLink | undefined> {
    let problem = `it is lost again and again: ${loss.message}`;
    const { signal } = this.#ending;
    while (!signal.aborted) {
      const delayMs = this.#delaysMs[this.#numAttempts++];
      if (delayMs === undefined) {
        this.#listener.died(this.#unrecoverable(problem));
        return undefined;
      }
      try {
        if (delayMs > 0) await sleep(delayMs, undefined, { signal });
        return await this.#options.start(signal);
      } catch (error) {
        problem = asTenonError(error).message;
        if (!signal.aborted) this.#logAttempt(problem);
      }
    }
    return undefined;
  }

  #logAttempt(problem: string): void {
    const attempt = `attempt ${this.#numAttempts} of ${this.#delaysMs.length}`;
    this.#options.log('warn', `the engine does not start again (${attempt}): ${problem}`);
  }

  #unrecoverable(problem: string): TenonError {
    return new TenonError(
      'backend.device-lost',
      `it did not come back in ${this.#delaysMs.length} attempts: ${problem}`,
    );
  }
}
