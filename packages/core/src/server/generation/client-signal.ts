/** A request's AbortSignal: aborted when the client goes away before its answer is complete, streaming or not. */
import { setMaxListeners } from 'node:events';

import type { FastifyReply } from 'fastify';

import { TenonError } from '../../errors.js';
import { onAnswerEnd } from '../answer-end.js';

export function clientController(reply: FastifyReply): AbortController {
  const controller = new AbortController();
  // One listener per prompt of the request.
  setMaxListeners(0, controller.signal);
  onAnswerEnd(reply, (isComplete) => {
    if (isComplete) return;
    controller.abort(new TenonError('request.aborted', 'the client closed the connection'));
  });
  return controller;
}
