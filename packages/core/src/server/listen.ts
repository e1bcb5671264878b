/** Opens the server's address, or says why it cannot be had. */
import type { FastifyInstance } from 'fastify';

import { TenonError } from '../errors.js';

export type Address = { readonly host: string; readonly port: number } | { readonly path: string };

/** The URL that clients use. */
export async function listen(app: FastifyInstance, address: Address): Promise<string> {
  try {
    const url = await app.listen(address);
    return url.replace('0.0.0.0', '127.0.0.1').replace('[::]', '[::1]');
  } catch (error) {
    throw listenError(error, address);
  }
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
