import type { FastifyInstance } from 'fastify';

import type { ServerMetrics } from '../metrics/server-metrics.js';

export function metricsRoute(app: FastifyInstance, metrics: ServerMetrics): void {
  app.get('/metrics', {
    schema: { summary: 'Prometheus metrics', tags: ['server'] },
    logLevel: 'warn',
    handler: async (_request, reply) => reply.type(metrics.contentType).send(await metrics.text()),
  });
}
