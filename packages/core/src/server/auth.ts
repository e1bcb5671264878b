/** Bearer keys: `Authorization: Bearer <key>` on every route but those that declare themselves open. */
import { createHash, timingSafeEqual } from 'node:crypto';

import type { FastifyInstance } from 'fastify';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the route answers without a key. */
    open?: boolean;
  }
}

export function registerAuth(app: FastifyInstance, apiKeys: readonly string[]): void {
  if (apiKeys.length === 0) return;
  const digests = apiKeys.map(digest);
  app.addHook('onRequest', async (request, reply) => {
    if (request.method === 'OPTIONS' || request.routeOptions.config.open === true) return;
    if (isAuthorized(request.headers.authorization, digests)) return;
    return reply.code(401).header('www-authenticate', 'Bearer').send({ error: 'Unauthorized' });
  });
}

/** Compares hashes, and all of them, so that time tells nothing about any key. */
function isAuthorized(header: string | undefined, digests: readonly Buffer[]): boolean {
  const [scheme, token] = splitOnce(header ?? '', ' ');
  const given = digest(token.trim());
  let matches = false;
  for (const expected of digests) matches = timingSafeEqual(given, expected) || matches;
  return matches && scheme.toLowerCase() === 'bearer';
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}
