/**
 * Graceful end: health turns red and new work is refused at once; running requests may finish for `timeoutMs`, the
 * rest fail with an error; then connections close. The socket stays open until then, so that a load balancer sees
 * /health turn red and late clients are told to retry elsewhere.
 */
import type { FastifyInstance } from 'fastify';

const flushTimeoutMs = 2000;
const freeTimeoutMs = 3000;
const pollMs = 10;

export async function shutDown(app: FastifyInstance, timeoutMs: number): Promise<void> {
  const { engine, state } = app.tenon;
  state.shuttingDown = true;
  await engine.close({ timeoutMs });
  await untilAnswered(app);
  app.server.closeAllConnections();
  await app.close();
}

/** After the engine's death: sends the last errors and frees what can be freed. False: the engine's thread does not end. */
export async function endAfterDeath(app: FastifyInstance): Promise<boolean> {
  await untilAnswered(app);
  return Promise.race([
    app.tenon.engine.close().then(() => true),
    new Promise<boolean>((resolve) => setTimeout(() => resolve(false), freeTimeoutMs)),
  ]);
}

/** The engine has ended every request; their last bytes may still be under way. */
async function untilAnswered(app: FastifyInstance): Promise<void> {
  const deadline = performance.now() + flushTimeoutMs;
  while (app.tenon.state.numActiveRequests > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}
