/** The HTTP server: OpenAI's API over one engine. */
import fastify, { type FastifyInstance } from 'fastify';

import type { Engine } from '../engine/types.js';
import { registerActiveRequests } from './active-requests.js';
import { registerAuth } from './auth.js';
import { connectionLimits, registerSlowReaders } from './connection-limits.js';
import { registerErrorHandlers, sendError } from './error-response.js';
import { newRequestId, requestIdHeader } from './generation/request-id.js';
import { registerLazyValidators } from './lazy-validators.js';
import { ServerMetrics } from './metrics/server-metrics.js';
import { registerOpenApi } from './openapi.js';
import { registerBodyRules, schemaError } from './read-body.js';
import { childLogger, RequestLog } from './request-log.js';
import { detokenizeRoute } from './routes/detokenize.js';
import { healthRoutes } from './routes/health.js';
import { loadRoute } from './routes/load.js';
import { metricsRoute } from './routes/metrics.js';
import { tokenizeRoute } from './routes/tokenize.js';
import { chatCompletionRoute } from './routes/v1/chat-completions.js';
import { completionRoute } from './routes/v1/completions.js';
import { modelRoutes } from './routes/v1/models.js';
import { versionRoute } from './routes/version.js';
import { createServerContext, type ServerContext } from './server-context.js';
import { completeServerOptions, type ServerOptions } from './server-options.js';
import type { NamedToolParser } from './tool-calls/tool-parsers.js';

declare module 'fastify' {
  interface FastifyInstance {
    tenon: ServerContext;
  }
}

export interface CreateAppOptions {
  readonly engine: Engine;
  readonly options?: Partial<ServerOptions>;
  readonly toolParser?: NamedToolParser | undefined;
}

/** Ready for `listen` or `inject`. Closing it does not close the engine: see shutdown.ts. */
export async function createApp({
  engine,
  options: given = {},
  toolParser,
}: CreateAppOptions): Promise<FastifyInstance> {
  const options = completeServerOptions(given, engine.info.modelName);
  const context = createServerContext(engine, options, toolParser);
  const app = fastify({
    ...connectionLimits(options.clientTimeoutSeconds, options.logger),
    ...(options.logger === undefined ? {} : { loggerInstance: options.logger }),
    logController: new RequestLog({ disableRequestLogging: !options.accessLog }),
    bodyLimit: options.bodyLimitBytes,
    requestIdHeader,
    genReqId: newRequestId,
    childLoggerFactory: childLogger(options.enableRequestIdHeaders),
    frameworkErrors: (error, _request, reply) => sendError(reply, error),
    routerOptions: { maxParamLength: 1024 },
    schemaErrorFormatter: schemaError,
    forceCloseConnections: 'idle',
  }) as FastifyInstance;
  registerLazyValidators(app);
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.decorate('tenon', context);
  registerErrorHandlers(app);
  await registerCors(app, options);
  registerSlowReaders(app, options.clientTimeoutSeconds);
  registerAuth(app, options.apiKeys);
  registerRequestIds(app, options);
  registerActiveRequests(app, context);
  registerBodyRules(app);
  if (!options.disableDocs) registerOpenApi(app, options.apiKeys.length > 0);
  registerRoutes(app, context);
  return app;
}

function registerRoutes(app: FastifyInstance, context: ServerContext): void {
  const { engine, options } = context;
  const modelName = options.servedModelNames[0] ?? engine.info.modelName;
  modelRoutes(app, context);
  completionRoute(app, context);
  chatCompletionRoute(app, context);
  tokenizeRoute(app, context);
  detokenizeRoute(app, context);
  healthRoutes(app, context);
  versionRoute(app);
  metricsRoute(app, new ServerMetrics(engine, { modelName, prefix: options.metricsPrefix }));
  if (options.enableServerLoadTracking) loadRoute(app, context);
}

async function registerCors(app: FastifyInstance, options: ServerOptions): Promise<void> {
  const { default: cors } = await import('@fastify/cors');
  const orAll = (names: readonly string[]): string[] | undefined =>
    names.includes('*') ? undefined : [...names];
  await app.register(cors, {
    origin: options.allowedOrigins.includes('*') ? anyOrigin(options) : [...options.allowedOrigins],
    methods: orAll(options.allowedMethods) ?? ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS'],
    allowedHeaders: orAll(options.allowedHeaders),
    credentials: options.allowCredentials,
  });
}

/** Browsers refuse `*` with credentials, so the origin itself is answered then. */
function anyOrigin({ allowCredentials }: ServerOptions): '*' | true {
  return allowCredentials ? true : '*';
}

function registerRequestIds(app: FastifyInstance, options: ServerOptions): void {
  if (!options.enableRequestIdHeaders) return;
  app.addHook('onRequest', async (request, reply) => {
    reply.header(requestIdHeader, request.id);
  });
}
