/** What the main thread and a stat logger's thread tell each other. */
import type { TenonError } from '../errors.js';
import type { StatReport } from '../extensions/index.js';
import type { Extension } from './extensions.js';

export interface StatLoggerThreadData {
  readonly extension: Extension & { readonly kind: 'statLoggers' };
  readonly argument: string | undefined;
}

export type ToStatLogger = { readonly type: 'log'; readonly report: StatReport } | { readonly type: 'close' };

export type FromStatLogger =
  | { readonly type: 'ready' }
  /** The logger cannot be made; the thread ends. */
  | { readonly type: 'unusable'; readonly error: ReturnType<TenonError['toJSON']> }
  /** It has dealt with a report, or has failed to. */
  | { readonly type: 'logged'; readonly error: string | undefined };
