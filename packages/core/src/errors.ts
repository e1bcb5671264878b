/** Every error Tenon reports. The table below is the closed set of codes; docs/errors.md explains each (a test compares them). */

/** Where a code belongs, and so how it ends: HTTP status, exit status. */
export type ErrorKind = 'request' | 'config' | 'capacity' | 'unsupported' | 'backend' | 'internal';

export const errorCodes = {
  'request.invalid-value': 'request',
  'request.invalid-body': 'request',
  'request.unsupported-parameter': 'request',
  'request.prompt-too-long': 'request',
  'request.prompt-empty': 'request',
  'request.token-out-of-vocabulary': 'request',
  'request.chat-template': 'request',
  'request.no-chat-template': 'request',
  'request.no-tokenizer': 'request',
  'request.model-not-found': 'request',
  'request.unauthorized': 'request',
  'request.not-found': 'request',
  'request.too-large': 'request',
  'request.timeout': 'request',
  'request.invalid-http': 'request',
  'request.aborted': 'request',
  'request.benchmark-failed': 'request',

  'config.invalid-option': 'config',
  'config.invalid-environment': 'config',
  'config.model-not-found': 'config',
  'config.model-invalid': 'config',
  'config.weights-invalid': 'config',
  'config.weights-missing': 'config',
  'config.tokenizer-invalid': 'config',
  'config.download-failed': 'config',
  'config.device-not-found': 'config',
  'config.device-unusable': 'config',
  'config.backend-invalid': 'config',
  'config.extension-not-found': 'config',
  'config.extension-invalid': 'config',
  'config.max-model-len': 'config',
  'config.port-in-use': 'config',
  'config.server-unreachable': 'config',

  'capacity.memory': 'capacity',
  'capacity.queue-full': 'capacity',
  'capacity.shutting-down': 'capacity',

  'unsupported.architecture': 'unsupported',
  'unsupported.model-feature': 'unsupported',
  'unsupported.quantization': 'unsupported',
  'unsupported.dtype': 'unsupported',
  'unsupported.op': 'unsupported',

  'backend.load-failed': 'backend',
  'backend.step-failed': 'backend',
  'backend.device-lost': 'backend',
  'backend.out-of-memory': 'backend',

  'internal.invariant': 'internal',
  'internal.engine-died': 'internal',
  'internal.extension-failed': 'internal',
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof errorCodes;

export interface ErrorDetails {
  /** The request field or option at fault, as the user spells it. */
  readonly param?: string;
  readonly retryAfterSeconds?: number;
  readonly cause?: unknown;
}

/** What happened, with which value, what was expected, and what to do, in one message a person can act on. */
export class TenonError extends Error {
  readonly code: ErrorCode;
  readonly param: string | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'TenonError';
    this.code = code;
    this.param = details.param;
    this.retryAfterSeconds = details.retryAfterSeconds;
  }

  get kind(): ErrorKind {
    return errorCodes[this.code];
  }

  /** The error as plain data, for crossing threads; `fromJSON` restores it. */
  toJSON(): { code: ErrorCode; message: string; param?: string; retryAfterSeconds?: number } {
    return {
      code: this.code,
      message: this.message,
      param: this.param,
      retryAfterSeconds: this.retryAfterSeconds,
    };
  }

  static fromJSON(data: ReturnType<TenonError['toJSON']>): TenonError {
    return new TenonError(data.code, data.message, data);
  }
}

export const bugNote = ' (a bug in Tenon: please report it)';

/** A failure that only a bug of ours can cause. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new TenonError('internal.invariant', message + bugNote);
}

/**
 * Any thrown value as a TenonError. Errors that carry one of our codes (backends throw such: see contract.ts) keep it; others
 * become internal errors that keep their cause.
 */
export function asTenonError(error: unknown): TenonError {
  if (error instanceof TenonError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const known = Object.hasOwn(errorCodes, code) ? (code as ErrorCode) : 'internal.invariant';
  return new TenonError(known, message, { cause: error });
}
