/** When an answer is over, for whatever reason. */
import type { FastifyReply } from 'fastify';

/**
 * Calls `onEnd` once: when the answer has been handed to the system, or when its connection closed before. Of pipelined
 * answers only the first has the connection, and only that one is told of its end: so the connection is watched, too.
 */
export function onAnswerEnd(reply: FastifyReply, onEnd: (isComplete: boolean) => void): void {
  const { raw } = reply;
  const { socket } = reply.request.raw;
  let isOver = false;
  const end = (): void => {
    // Listeners that are removed while the socket's end is being told are called all the same.
    if (isOver) return;
    isOver = true;
    raw.off('finish', end).off('close', end);
    socket.off('close', end);
    onEnd(raw.writableFinished);
  };
  raw.on('finish', end).on('close', end);
  // One listener or two for each pipelined request.
  socket.setMaxListeners(0).on('close', end);
}
