/** Runs an answer's engine requests side by side: to their ends, or as a stream of events. */
import type { FastifyReply } from 'fastify';

import type { GenerateRequest, RequestOutput } from '../../engine/types.js';
import { invariant } from '../../errors.js';
import type { ServerContext } from '../server-context.js';
import { clientController } from './client-signal.js';
import { SseWriter } from './sse-writer.js';

/** One output per request, in order. The first failure aborts the others. */
export async function collectOutputs(
  { engine, generationLog }: ServerContext,
  requests: readonly GenerateRequest[],
  reply: FastifyReply,
): Promise<RequestOutput[]> {
  const controller = clientController(reply);
  const collect = async (request: GenerateRequest): Promise<RequestOutput> => {
    let last: RequestOutput | undefined;
    generationLog?.arrived(request);
    for await (const output of engine.generate({ ...request, signal: controller.signal })) last = output;
    controller.signal.throwIfAborted();
    invariant(last !== undefined, `request ${request.requestId} ended without an output`);
    return last;
  };
  try {
    return await Promise.all(requests.map(collect));
  } catch (error) {
    controller.abort(error);
    throw error;
  }
}

export interface AnswerStream {
  onOutput(promptIndex: number, output: RequestOutput, writer: SseWriter): void;
  /** What follows the last output. */
  onEnd(writer: SseWriter): void;
}

/**
 * The head goes out with the first output, so a request that fails before it gets a proper status (by throwing); a later
 * failure becomes an error event.
 */
export async function streamOutputs(
  { engine, generationLog }: ServerContext,
  requests: readonly GenerateRequest[],
  reply: FastifyReply,
  stream: AnswerStream,
): Promise<void> {
  const controller = clientController(reply);
  let writer: SseWriter | undefined;
  const run = async (request: GenerateRequest, promptIndex: number): Promise<void> => {
    generationLog?.arrived(request);
    for await (const output of engine.generate({ ...request, signal: controller.signal })) {
      // What has piled up for a client that has gone is not worth writing.
      controller.signal.throwIfAborted();
      writer ??= new SseWriter(reply);
      stream.onOutput(promptIndex, output, writer);
      if (writer.backpressure !== undefined) await writer.backpressure;
    }
    controller.signal.throwIfAborted();
  };
  try {
    await Promise.all(requests.map(run));
    writer ??= new SseWriter(reply);
    stream.onEnd(writer);
  } catch (error) {
    controller.abort(error);
    if (writer === undefined) throw error;
    writer.fail(error);
  }
  writer.end();
}
