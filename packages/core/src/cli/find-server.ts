/** Whom `chat` and `complete` talk to: the server at a URL, the one that runs here by default, or a model of their own. */
import { randomBytes } from 'node:crypto';

import { ApiClient } from './api-client.js';
import { loadEngine } from './load-engine.js';
import type { OptionValue } from './option-values.js';

const defaultUrl = 'http://127.0.0.1:8000/v1';
const probeTimeoutMs = 500;

export interface FindServerOptions {
  readonly model: string | undefined;
  readonly url: string | undefined;
  readonly modelName: string | undefined;
  readonly apiKey: string | undefined;
  /** For a model of its own. */
  readonly engine: Readonly<Record<string, OptionValue>>;
}

export interface Server {
  readonly client: ApiClient;
  readonly modelName: string;
  /** For a person: who answers. */
  readonly description: string;
  close(): Promise<void>;
}

export async function findServer(options: FindServerOptions): Promise<Server> {
  if (options.url !== undefined) {
    const client = new ApiClient(options.url, options.apiKey);
    return remote(client, await client.models(), options);
  }
  const client = new ApiClient(defaultUrl, options.apiKey);
  const names = await client.models(AbortSignal.timeout(probeTimeoutMs)).catch(() => undefined);
  const isServed = names !== undefined && (options.model === undefined || names.includes(options.model));
  return isServed ? remote(client, names, options) : ownServer(options);
}

function remote(
  client: ApiClient,
  names: readonly string[],
  { model, modelName }: FindServerOptions,
): Server {
  const name = modelName ?? model ?? names[0] ?? '';
  return { client, modelName: name, description: `${name} at ${client.url}`, close: async () => {} };
}

/** A server for this process alone: on a free port, with a key that nobody else knows. */
async function ownServer({ model, engine: given }: FindServerOptions): Promise<Server> {
  const warn = (level: string, message: string): void => {
    if (level === 'warn') process.stderr.write(`${message}\n`);
  };
  const [{ engine }, { createApp }, { listen }] = await Promise.all([
    loadEngine(model, given, warn),
    import('../server/app.js'),
    import('../server/listen.js'),
  ]);
  const apiKey = randomBytes(16).toString('hex');
  const app = await createApp({ engine, options: { apiKeys: [apiKey], disableDocs: true } });
  const url = await listen(app, { host: '127.0.0.1', port: 0 });
  const { shutDown } = await import('../server/shutdown.js');
  return {
    client: new ApiClient(`${url}/v1`, apiKey),
    modelName: engine.info.modelName,
    description: `${engine.info.modelName} on ${engine.info.device}`,
    close: () => shutDown(app, 0),
  };
}
