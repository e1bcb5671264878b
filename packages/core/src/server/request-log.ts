/** One log line per request, when it is over. */
import { type FastifyReply, type FastifyRequest, LogController } from 'fastify';

export class RequestLog extends LogController {
  override incomingRequest(): void {}

  override requestCompleted(
    error: Error | null | undefined,
    request: FastifyRequest,
    reply: FastifyReply,
  ): void {
    if (this.isLogDisabled(request)) return;
    const line = `${request.method} ${request.url} ${reply.raw.statusCode} ${reply.elapsedTime.toFixed(0)} ms`;
    if (error) request.log.error({ err: error }, line);
    else request.log.info(line);
  }
}
