/** HTTP written by hand, for clients that no library would be. */
import { connect, type Socket } from 'node:net';

export interface RawClient {
  readonly socket: Socket;
  /** All that has arrived. */
  text(): string;
  readonly closed: Promise<void>;
}

export function rawClient(port: number, ...parts: readonly string[]): RawClient {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  let text = '';
  socket.on('data', (bytes: Buffer) => (text += bytes.toString('latin1')));
  socket.on('error', () => {});
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => resolve()).once('end', () => socket.end());
  });
  for (const part of parts) socket.write(part);
  return { socket, text: () => text, closed };
}

/** A completion request as bytes. */
export function completionRequest(body: object, headers: Readonly<Record<string, string>> = {}): string {
  const json = JSON.stringify(body);
  const lines = Object.entries({
    host: 'x',
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(json)),
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST /v1/completions HTTP/1.1\r\n${lines.join('')}\r\n${json}`;
}

/** The numbers of all answers on one connection. */
export function statusesOf(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
}
