import type { FastifyInstance, FastifyReply } from 'fastify';

import { TenonError } from '../../errors.js';
import { errorBody } from '../error-response.js';
import type { ServerContext } from '../server-context.js';

/** /health and SageMaker's /ping, for which no key is asked: 200 and nothing, or 503 and why. */
export function healthRoutes(app: FastifyInstance, context: ServerContext): void {
  const handler = async (_request: unknown, reply: FastifyReply): Promise<FastifyReply> => {
    const problem = healthProblem(context);
    return problem === undefined ? reply.code(200).send() : reply.code(503).send(errorBody(problem, 503));
  };
  const options = {
    schema: { summary: 'Whether the server can take requests', tags: ['server'] },
    logLevel: 'warn' as const,
    config: { open: true },
  };
  app.get('/health', { ...options, handler });
  app.get('/ping', { ...options, handler });
  app.post('/ping', { ...options, handler });
}

function healthProblem({ engine, state }: ServerContext): TenonError | undefined {
  if (state.shuttingDown) return new TenonError('capacity.shutting-down', 'the server is shutting down');
  const health = engine.health();
  if (health.ok) return undefined;
  const { reason = 'no reason given', isRestarting = false } = health;
  return isRestarting
    ? new TenonError('backend.device-lost', `the engine is restarting: ${reason}`)
    : new TenonError('internal.engine-died', `the engine is not healthy: ${reason}`);
}
