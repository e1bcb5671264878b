import type { FastifyInstance } from 'fastify';

import { tenonVersion } from '../../version.js';

export function versionRoute(app: FastifyInstance): void {
  app.get('/version', {
    schema: { summary: "Tenon's version", tags: ['server'] },
    handler: async () => ({ version: tenonVersion }),
  });
}
