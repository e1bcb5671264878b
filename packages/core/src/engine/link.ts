/** The front end's way to a core, in a worker thread or in this one. */
import type { TenonError } from '../errors.js';
import type { FromCore, ToCore } from './core-messages.js';

export interface CoreLink {
  send(message: ToCore): void;
  /** Whom the core's news reach from now on. */
  listen(listener: CoreListener): void;
  /** Lets the steps in flight end, then frees the device. Idempotent. */
  close(): Promise<void>;
  /** Ends a core that hangs, as `error` says: what it holds is freed as far as it can be, and `close` waits for no step. */
  abandon(error: TenonError): void;
}

export interface CoreListener {
  message(message: FromCore): void;
  /** The core is gone, and so are its requests. */
  died(error: TenonError): void;
  /** The core is gone, but another is on its way. It will be given the requests that are kept, and what is sent meanwhile. */
  lost(error: TenonError, isKept: (firstSequenceId: number) => boolean): void;
  /** There is a core again; it knows what has been sent. */
  recovered(): void;
}

export const deafListener: CoreListener = {
  message: () => {},
  died: () => {},
  lost: () => {},
  recovered: () => {},
};
