/** Counts generation requests from arrival to the last byte, and refuses new ones while the server shuts down. */
import type { FastifyInstance } from 'fastify';

import { TenonError } from '../errors.js';
import { onAnswerEnd } from './answer-end.js';
import type { ServerContext } from './server-context.js';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the route runs the model. */
    generates?: boolean;
  }
}

export function registerActiveRequests(app: FastifyInstance, { state }: ServerContext): void {
  app.addHook('onRequest', async (request, reply) => {
    if (request.routeOptions.config.generates !== true) return;
    if (state.shuttingDown) {
      reply.header('connection', 'close');
      throw new TenonError('capacity.shutting-down', 'the server is shutting down; retry elsewhere');
    }
    state.numActiveRequests += 1;
    onAnswerEnd(reply, () => {
      state.numActiveRequests -= 1;
    });
  });
}
