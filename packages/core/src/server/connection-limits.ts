/**
 * What bounds a connection: the time to send a request, the time without reading an answer, the size of headers. Clients that
 * exceed it are cut, with a log line that names no text of theirs.
 */
import { type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';

import type { FastifyBaseLogger, FastifyHttpOptions, FastifyInstance, FastifyReply } from 'fastify';

import { TenonError } from '../errors.js';
import { errorBody, errorStatus } from './error-response.js';

/** Node's own, said here because clients are told. */
const maxHeaderBytes = 16_384;
/** The system asks connections that are quiet for so long whether their peer is still there. */
const keepAliveProbeMs = 60_000;
const maxCheckIntervalMs = 30_000;

/** Node checks the time to send a request; no data either way for as long is looked at in `registerSlowReaders`. */
export function connectionLimits(
  clientTimeoutSeconds: number,
  logger: FastifyBaseLogger | undefined,
): FastifyHttpOptions<Server> {
  const timeoutMs = clientTimeoutSeconds * 1000;
  return {
    requestTimeout: timeoutMs,
    connectionTimeout: timeoutMs,
    http: {
      maxHeaderSize: maxHeaderBytes,
      headersTimeout: timeoutMs,
      requestTimeout: timeoutMs,
      connectionsCheckingInterval: Math.min(maxCheckIntervalMs, timeoutMs / 4 || maxCheckIntervalMs),
      keepAlive: true,
      keepAliveInitialDelay: keepAliveProbeMs,
    },
    clientErrorHandler: (thrown, socket) => {
      if (thrown.code === 'ECONNRESET' || socket.destroyed) return;
      const error = clientError(thrown, clientTimeoutSeconds);
      logger?.[error.code === 'request.timeout' ? 'info' : 'debug'](
        `${error.message}: the connection is closed`,
      );
      answerClientError(socket, error, thrown.code);
    },
  };
}

/**
 * A connection that was quiet for the time-out is closed if it has something to read, and left alone while its request
 * waits or is computed.
 */
export function registerSlowReaders(app: FastifyInstance, clientTimeoutSeconds: number): void {
  if (clientTimeoutSeconds === 0) return;
  app.addHook('onRequest', async (_request, reply) => {
    reply.raw.on('timeout', () => cutSlowReader(reply, clientTimeoutSeconds));
  });
}

function cutSlowReader(reply: FastifyReply, clientTimeoutSeconds: number): void {
  const { socket } = reply.request.raw;
  if (socket.writableLength === 0) return;
  reply.log.warn(
    `a client has read nothing for ${clientTimeoutSeconds} s, with ${socket.writableLength} bytes waiting for it: its connection is closed`,
  );
  socket.destroy();
}

/** What Node's parser refuses, and requests that take too long to arrive, have no reply yet. Who has sent nothing has asked nothing. */
function answerClientError(socket: Socket, error: TenonError, cause: string | undefined): void {
  if (socket.bytesRead > 0 && socket.writable && !isAnswering(socket)) {
    socket.write(rawResponse(error, cause));
  }
  socket.destroySoon();
}

/** As Node's own handler looks at it: bytes of ours must not end up inside an answer. */
function isAnswering(socket: Socket & { _httpMessage?: ServerResponse | null }): boolean {
  return socket._httpMessage?.headersSent === true;
}

function clientError(thrown: NodeJS.ErrnoException, clientTimeoutSeconds: number): TenonError {
  switch (thrown.code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new TenonError('request.timeout', `a request did not arrive within ${clientTimeoutSeconds} s`);
    case 'HPE_HEADER_OVERFLOW':
      return new TenonError('request.too-large', `the headers exceed ${maxHeaderBytes} bytes`);
    default:
      return new TenonError('request.invalid-http', `what arrived is no HTTP request: ${thrown.message}`);
  }
}

function rawResponse(error: TenonError, cause: string | undefined): string {
  const status = cause === 'HPE_HEADER_OVERFLOW' ? 431 : errorStatus(error);
  const body = JSON.stringify(errorBody(error, status));
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nconnection: close\r\ncontent-type: application/json; charset=utf-8`;
  return `${head}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}
