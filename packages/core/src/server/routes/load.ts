import type { FastifyInstance } from 'fastify';

import type { ServerContext } from '../server-context.js';

/** Only with --enable-server-load-tracking. */
export function loadRoute(app: FastifyInstance, { state }: ServerContext): void {
  app.get('/load', {
    schema: { summary: 'Generation requests being answered now', tags: ['server'] },
    handler: async () => ({ server_load: state.numActiveRequests }),
  });
}
