/** Ids of answers and of engine requests. */
import { randomUUID } from 'node:crypto';

import type { FastifyRequest } from 'fastify';

let numEngineRequests = 0;

export const requestIdHeader = 'x-request-id';

/** For fastify, which prefers the header. */
export function newRequestId(): string {
  return randomUUID().replaceAll('-', '');
}

/** X-Request-Id, else `request_id` of the body, else a new one. */
export function requestIdOf(request: FastifyRequest, bodyId: string | undefined): string {
  if (request.headers[requestIdHeader] !== undefined) return request.id;
  return bodyId ?? request.id;
}

/** Unique even where clients repeat their ids. */
export function engineRequestId(answerId: string, promptIndex: number): string {
  numEngineRequests += 1;
  return `${answerId}-${promptIndex}-${numEngineRequests}`;
}
