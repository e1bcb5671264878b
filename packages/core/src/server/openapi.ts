/** /openapi.json and /docs. They are made when first asked for, so that starting does not wait for them. */
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema, RouteOptions } from 'fastify';
import { Type } from 'typebox';

import { tenonVersion } from '../version.js';

/** Before the routes, so that it sees them. */
export function registerOpenApi(app: FastifyInstance, isGuarded: boolean): void {
  const routes: RouteOptions[] = [];
  app.addHook('onRoute', (route) => void routes.push(route));
  let docs: Promise<FastifyInstance> | undefined;
  const handler = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    docs ??= buildDocs(routes, isGuarded);
    const { routing } = await docs;
    reply.hijack();
    for (const [name, value] of Object.entries(reply.getHeaders())) reply.raw.setHeader(name, value ?? '');
    routing(request.raw, reply.raw);
  };
  for (const url of ['/openapi.json', '/docs', '/docs/*']) {
    app.get(url, { schema: { hide: true }, logLevel: 'warn', handler });
  }
}

/** An app of its own with the same routes, of which only their descriptions matter. */
async function buildDocs(routes: readonly RouteOptions[], isGuarded: boolean): Promise<FastifyInstance> {
  const [{ default: fastify }, { default: swagger }, { default: swaggerUi }] = await Promise.all([
    import('fastify'),
    import('@fastify/swagger'),
    import('@fastify/swagger-ui'),
  ]);
  const docs = fastify();
  docs.setValidatorCompiler(() => () => true);
  docs.setSerializerCompiler(() => (data) => JSON.stringify(data));
  await docs.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Tenon',
        version: tenonVersion,
        description: 'OpenAI-compatible API, with the additions of vLLM',
      },
      ...(isGuarded && {
        components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
        security: [{ key: [] }],
      }),
    },
  });
  await docs.register(swaggerUi, { routePrefix: '/docs' });
  for (const { method, url, schema } of routes) {
    const isShown = schema !== undefined && !('hide' in schema) && method !== 'HEAD';
    if (isShown) docs.route({ method, ...withoutWildcard(url, schema), handler: async () => null });
  }
  docs.get('/openapi.json', { schema: { hide: true }, handler: async () => docs.swagger() });
  await docs.ready();
  return docs;
}

/** OpenAPI has no wildcards; ours is the name of a model, which may contain slashes. */
function withoutWildcard(url: string, schema: FastifySchema): { url: string; schema: FastifySchema } {
  if (!url.endsWith('/*')) return { url, schema };
  const params = Type.Object({
    model: Type.String({ description: 'A served model; it may contain slashes' }),
  });
  return { url: url.replace('*', ':model'), schema: { ...schema, params } };
}
