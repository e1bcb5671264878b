/** Opens the server's address, or says why it cannot be had. */
import { once } from 'node:events';
import { createServer } from 'node:net';

import type { FastifyInstance } from 'fastify';

import { TenonError } from '../errors.js';

export type Address = { readonly host: string; readonly port: number } | { readonly path: string };

/** Fails at once where `listen` would fail later, after the model has loaded. */
export async function checkAddress(address: Address): Promise<void> {
  const server = createServer();
  try {
    server.listen(address);
    await once(server, 'listening');
  } catch (error) {
    throw listenError(error, address);
  }
  server.close();
  await once(server, 'close');
}

/** Connections that may wait to be accepted: thousands may come at once. The system may cap it. */
const backlog = 4096;

/** The URL that clients use. */
export async function listen(app: FastifyInstance, address: Address): Promise<string> {
  try {
    return clientUrl(
      await app.listen({ ...address, backlog, listenTextResolver: (url) => `listening at ${url}` }),
      address,
    );
  } catch (error) {
    throw listenError(error, address);
  }
}

function clientUrl(url: string, address: Address): string {
  if ('path' in address) return `http://unix:${address.path}:`;
  return url.replace('0.0.0.0', '127.0.0.1').replace('[::]', '[::1]');
}

function listenError(error: unknown, address: Address): unknown {
  const where = 'path' in address ? address.path : `${address.host}:${address.port}`;
  switch ((error as NodeJS.ErrnoException).code) {
    case 'EADDRINUSE': {
      const message = `${where} is in use by another process; choose another --port, or stop that process`;
      return new TenonError('config.port-in-use', message, { param: 'port', cause: error });
    }
    case 'EACCES':
      return new TenonError(
        'config.invalid-option',
        `no permission to listen on ${where}; use a --port above 1023`,
      );
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new TenonError('config.invalid-option', `this machine has no address ${where}; check --host`);
    default:
      return error;
  }
}
