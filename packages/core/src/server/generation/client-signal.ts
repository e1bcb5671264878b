/** A request's AbortSignal: aborted when the client goes away before its answer is complete, streaming or not. */
import { setMaxListeners } from 'node:events';

import type { FastifyReply } from 'fastify';

import { TenonError } from '../../errors.js';

export function clientController(reply: FastifyReply): AbortController {
  const controller = new AbortController();
  // One listener per prompt of the request.
  setMaxListeners(0, controller.signal);
  reply.raw.once('close', () => {
    if (reply.raw.writableFinished) return;
    controller.abort(new TenonError('request.aborted', 'the client closed the connection'));
  });
  return controller;
}
