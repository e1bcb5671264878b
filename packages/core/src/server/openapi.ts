/** /openapi.json and /docs. */
import type { FastifyInstance } from 'fastify';

import { tenonVersion } from '../version.js';

/** Before the routes, so that it sees them. */
export async function registerOpenApi(app: FastifyInstance, isGuarded: boolean): Promise<void> {
  const [{ default: swagger }, { default: swaggerUi }] = await Promise.all([
    import('@fastify/swagger'),
    import('@fastify/swagger-ui'),
  ]);
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Tenon',
        version: tenonVersion,
        description: 'OpenAI-compatible API, with the additions of vLLM',
      },
      ...(isGuarded
        ? {
            components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
            security: [{ key: [] }],
          }
        : {}),
    },
  });
  await app.register(swaggerUi, { routePrefix: '/docs', logLevel: 'warn' });
  app.get('/openapi.json', { schema: { hide: true }, logLevel: 'warn', handler: async () => app.swagger() });
}
