/** Any error as vLLM's HTTP error: `{"error": {"message", "type", "param", "code"}}`, and `tenon_code` of docs/errors.md. */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

import { asTenonError, type ErrorCode, type ErrorKind, TenonError } from '../errors.js';

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    /** The request field at fault, dotted. */
    readonly param: string | null;
    /** The HTTP status. */
    readonly code: number;
    readonly tenon_code: ErrorCode;
  };
}

interface StatusAndType {
  readonly status: number;
  readonly type: string;
}

const byKind: Readonly<Record<ErrorKind, StatusAndType>> = {
  request: { status: 400, type: 'BadRequestError' },
  capacity: { status: 503, type: 'ServiceUnavailableError' },
  unsupported: { status: 501, type: 'NotImplementedError' },
  config: { status: 500, type: 'InternalServerError' },
  backend: { status: 500, type: 'InternalServerError' },
  internal: { status: 500, type: 'InternalServerError' },
};

const byCode: Partial<Record<ErrorCode, StatusAndType>> = {
  'request.invalid-body': { status: 400, type: 'Bad Request' },
  'request.model-not-found': { status: 404, type: 'NotFoundError' },
  'request.not-found': { status: 404, type: 'Not Found' },
  'request.too-large': { status: 413, type: 'Payload Too Large' },
  'request.timeout': { status: 408, type: 'Request Timeout' },
  'request.invalid-http': { status: 400, type: 'Bad Request' },
  'capacity.queue-full': { status: 429, type: 'TooManyRequestsError' },
};

const defaultRetryAfterSeconds = 1;

export function errorStatus(error: TenonError): number {
  return (byCode[error.code] ?? byKind[error.kind]).status;
}

export function errorBody(error: TenonError, status = errorStatus(error)): ErrorBody {
  const { type } = byCode[error.code] ?? byKind[error.kind];
  const message = error.kind === 'request' ? error.message : withoutPaths(error.message);
  return { error: { message, type, param: paramOf(error), code: status, tenon_code: error.code } };
}

/** The engine spells its one field that HTTP calls otherwise as the library does. */
function paramOf({ param }: TenonError): string | null {
  return param === 'extraArgs' ? 'vllm_xargs' : (param ?? null);
}

/** Server-side paths are nothing for clients. */
function withoutPaths(message: string): string {
  return message.replaceAll(/(?<![\w:/])\/(?:[\w.@+-]+\/)+[\w.@+-]+/g, '<path>');
}

export function sendError(reply: FastifyReply, thrown: unknown): FastifyReply {
  const error = httpError(thrown);
  const status = errorStatus(error);
  if (error.kind === 'capacity') {
    reply.header('retry-after', String(Math.ceil(error.retryAfterSeconds ?? defaultRetryAfterSeconds)));
  }
  return reply.code(status).send(errorBody(error, status));
}

/** Errors of fastify (broken JSON, wrong content type, too large a body) and of anyone else, as a TenonError. */
export function httpError(thrown: unknown): TenonError {
  if (thrown instanceof TenonError) return thrown;
  const { statusCode, message, code } = thrown as FastifyError;
  if (statusCode === undefined || statusCode < 400 || statusCode >= 500) return asTenonError(thrown);
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return new TenonError(
      'request.invalid-body',
      `${message}; send JSON with 'content-type: application/json'`,
    );
  }
  if (code === 'FST_ERR_CTP_EMPTY_JSON_BODY') {
    return new TenonError('request.invalid-body', 'the body is empty; send a JSON object');
  }
  if (statusCode === 413) return new TenonError('request.too-large', `${message} (see --max-body-size)`);
  if (code === 'FST_ERR_BAD_URL') return new TenonError('request.invalid-http', message);
  return new TenonError('request.invalid-body', `the request cannot be read: ${message}`);
}

export function registerErrorHandlers(app: FastifyInstance): void {
  app.setErrorHandler((thrown: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const error = httpError(thrown);
    if (errorStatus(error) >= 500 && error.kind !== 'capacity')
      request.log.error({ err: thrown }, error.message);
    return sendError(reply, thrown);
  });
  app.setNotFoundHandler((request: FastifyRequest, reply: FastifyReply) => {
    const path = request.url.split('?', 1)[0] ?? '/';
    const allowed = (['GET', 'POST'] as const).filter((method) => app.hasRoute({ method, url: path }));
    if (allowed.length === 0) {
      return sendError(
        reply,
        new TenonError('request.not-found', `there is no route ${request.method} ${path}`),
      );
    }
    reply.header('allow', allowed.join(', '));
    const message = `${path} takes ${allowed.join(' or ')}, not ${request.method}`;
    return reply.code(405).send({
      error: {
        ...errorBody(new TenonError('request.not-found', message)).error,
        type: 'Method Not Allowed',
        code: 405,
      },
    });
  });
}
