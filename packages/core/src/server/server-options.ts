/** What the HTTP server can be told; every field has its default here. */
import type { FastifyBaseLogger } from 'fastify';

export interface ServerOptions {
  /** The names that requests may use; the first is in answers. */
  readonly servedModelNames: readonly string[];
  /** Empty: no authentication. */
  readonly apiKeys: readonly string[];
  readonly allowedOrigins: readonly string[];
  readonly allowedMethods: readonly string[];
  readonly allowedHeaders: readonly string[];
  readonly allowCredentials: boolean;
  /** Jinja source that replaces the model's chat template. */
  readonly chatTemplate: string | undefined;
  readonly chatTemplateContentFormat: 'auto' | 'string' | 'openai';
  /** Whether a request may bring its own chat template. */
  readonly trustRequestChatTemplate: boolean;
  /** Read tool calls in the answers of requests with tools; needs a tool parser. */
  readonly enableAutoToolChoice: boolean;
  /** Keep tools out of the prompts of requests that may call none. */
  readonly excludeToolsWhenToolChoiceNone: boolean;
  /** The role of generated messages. */
  readonly responseRole: string;
  readonly enablePromptTokensDetails: boolean;
  readonly enableForceIncludeUsage: boolean;
  readonly enablePerRequestMetrics: boolean;
  readonly enableServerLoadTracking: boolean;
  readonly enableRequestIdHeaders: boolean;
  readonly returnTokensAsTokenIds: boolean;
  /** Tokens per stream chunk; the first and the last go out at once. */
  readonly streamInterval: number;
  readonly disableDocs: boolean;
  readonly metricsPrefix: string;
  readonly bodyLimitBytes: number;
  /** Seconds that a client may take to send a request, or to read any more of its answer; 0: for ever. */
  readonly clientTimeoutSeconds: number;
  /** Prompts in one completion request. */
  readonly maxNumPrompts: number;
  /** Tensor parallelism, for the system fingerprint. */
  readonly parallelism: string;
  readonly logger: FastifyBaseLogger | undefined;
  /** A line per HTTP request. */
  readonly accessLog: boolean;
  /** Prompts, parameters, sizes and times of requests for the engine. */
  readonly logRequests: boolean;
  /** Characters, or token ids, of a logged prompt. */
  readonly maxLogLen: number;
}

export function completeServerOptions(options: Partial<ServerOptions>, modelName: string): ServerOptions {
  return {
    servedModelNames: options.servedModelNames?.length ? options.servedModelNames : [modelName],
    apiKeys: options.apiKeys ?? [],
    allowedOrigins: options.allowedOrigins ?? ['*'],
    allowedMethods: options.allowedMethods ?? ['*'],
    allowedHeaders: options.allowedHeaders ?? ['*'],
    allowCredentials: options.allowCredentials ?? false,
    chatTemplate: options.chatTemplate,
    chatTemplateContentFormat: options.chatTemplateContentFormat ?? 'auto',
    trustRequestChatTemplate: options.trustRequestChatTemplate ?? false,
    enableAutoToolChoice: options.enableAutoToolChoice ?? false,
    excludeToolsWhenToolChoiceNone: options.excludeToolsWhenToolChoiceNone ?? false,
    responseRole: options.responseRole ?? 'assistant',
    enablePromptTokensDetails: options.enablePromptTokensDetails ?? true,
    enableForceIncludeUsage: options.enableForceIncludeUsage ?? false,
    enablePerRequestMetrics: options.enablePerRequestMetrics ?? false,
    enableServerLoadTracking: options.enableServerLoadTracking ?? false,
    enableRequestIdHeaders: options.enableRequestIdHeaders ?? false,
    returnTokensAsTokenIds: options.returnTokensAsTokenIds ?? false,
    streamInterval: options.streamInterval ?? 1,
    disableDocs: options.disableDocs ?? false,
    metricsPrefix: options.metricsPrefix ?? 'tenon',
    bodyLimitBytes: options.bodyLimitBytes ?? 32 * 1024 * 1024,
    clientTimeoutSeconds: options.clientTimeoutSeconds ?? 60,
    maxNumPrompts: options.maxNumPrompts ?? 1024,
    parallelism: options.parallelism ?? 'tp1',
    logger: options.logger,
    accessLog: options.accessLog ?? true,
    logRequests: options.logRequests ?? false,
    maxLogLen: options.maxLogLen ?? 256,
  };
}
