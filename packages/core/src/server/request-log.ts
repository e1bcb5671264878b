/** One log line per request, when it is over. What clients send (paths, headers, bodies) is in none. */
import type { IncomingMessage } from 'node:http';

import {
  type FastifyBaseLogger,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
  LogController,
} from 'fastify';

import { requestIdHeader } from './generation/request-id.js';

export class RequestLog extends LogController {
  override incomingRequest(): void {}

  override requestCompleted(
    error: Error | null | undefined,
    request: FastifyRequest,
    reply: FastifyReply,
  ): void {
    if (this.isLogDisabled(request)) return;
    const route = request.routeOptions.url ?? '(no such route)';
    const line = `${request.method} ${route} ${reply.raw.statusCode} ${reply.elapsedTime.toFixed(0)} ms`;
    if (error) request.log.error({ err: error }, line);
    else request.log.info(line);
  }
}

/** Lines carry the request's id; one that the client has chosen, only with --enable-request-id-headers. */
export function childLogger(logsClientIds: boolean): NonNullable<FastifyServerOptions['childLoggerFactory']> {
  return (logger, bindings, options, raw) =>
    (logsClientIds || (raw as IncomingMessage).headers[requestIdHeader] === undefined
      ? logger.child(bindings, options)
      : logger) as FastifyBaseLogger;
}
