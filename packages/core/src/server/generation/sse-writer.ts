/** Server-sent events on one response: hot, so strings go straight to the socket and waiting happens only under backpressure. */
import type { ServerResponse } from 'node:http';

import type { FastifyReply } from 'fastify';

import { errorBody, httpError } from '../error-response.js';

export class SseWriter {
  readonly #raw: ServerResponse;
  /** Set while the client reads slower than we write. */
  #drained: Promise<void> | undefined;

  /** Takes the response over from fastify and sends its head; headers set on `reply` so far go along. */
  constructor(reply: FastifyReply) {
    reply.hijack();
    this.#raw = reply.raw;
    this.#raw.writeHead(200, {
      ...(reply.getHeaders() as Record<string, string>),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    });
  }

  /** One event of JSON text. */
  write(json: string): void {
    if (this.#isOver()) return;
    if (!this.#raw.write(`data: ${json}\n\n`)) this.#drained ??= this.#untilDrained();
  }

  /** A promise only where the caller must wait before it writes more. */
  get backpressure(): Promise<void> | undefined {
    return this.#drained;
  }

  fail(thrown: unknown): void {
    this.write(JSON.stringify(errorBody(httpError(thrown))));
  }

  /** Sends the closing event, also after an error. */
  end(): void {
    if (!this.#isOver()) this.#raw.end('data: [DONE]\n\n');
  }

  #isOver(): boolean {
    return this.#raw.destroyed || this.#raw.writableEnded;
  }

  async #untilDrained(): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#raw.off('drain', done).off('close', done);
        resolve();
      };
      this.#raw.on('drain', done).on('close', done);
    });
    this.#drained = undefined;
  }
}
