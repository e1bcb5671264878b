/** `tenon serve [model]`. */
import { existsSync, readFileSync } from 'node:fs';

import { Command } from 'commander';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';

import type { LoadedEngine } from '../container.js';
import type { Engine } from '../engine/types.js';
import { hasStuckThread } from '../engine/stuck-threads.js';
import { TenonError } from '../errors.js';
import type { StatLoggers } from '../plugins/stat-loggers.js';
import type { Address } from '../server/listen.js';
import type { ServerOptions } from '../server/server-options.js';
import type { NamedToolParser } from '../server/tool-calls/tool-parsers.js';
import { loadEngine } from './load-engine.js';
import { optionTable } from './option-table.js';
import type { OptionValue } from './option-values.js';
import { addOptions, type OptionValues, readOptions } from './parse-options.js';
import { watchStats } from './stats-line.js';
import { startupReport } from './startup-report.js';

const defaultHost = '127.0.0.1';
const defaultPort = 8000;
const defaultStatsSeconds = 5;
/** A library may queue what it likes; a server had better say early that it is behind. */
const defaultMaxNumWaitingRequests = 4096;

export function serveCommand(): Command {
  const command = new Command('serve')
    .description('Serve a model over an OpenAI-compatible API.')
    .usage('[model] [options]')
    .argument('[model]', 'folder, GGUF file, hub id or <scheme>://…; by default the embedded model')
    .option('--config <file>', 'YAML file of these options')
    .addHelpText('after', helpNotes);
  return addOptions(command, optionTable).action(async (model: string | undefined) => {
    await serve(model, readOptions(command, process.env));
  });
}

const helpNotes = `
Integers take suffixes: 4k = 4000, 4K = 4096. Flags have --no-… forms. Names may have underscores.
TENON_API_KEY and TENON_LOGGING_LEVEL stand in for their options.
TENON_PLUGINS: the packages and folders, separated by commas, whose plugins may run besides those of --plugin.
TENON_PROBE_TIMEOUT: seconds that a backend may take to be loaded in a process of its own (10).`;

async function serve(model: string | undefined, values: OptionValues): Promise<void> {
  const address = addressOf(values.command);
  const [{ createLogger }, { checkAddress, listen }] = await Promise.all([
    import('./log.js'),
    import('../server/listen.js'),
  ]);
  const logger = createLogger(String(values.command['logLevel'] ?? 'info'));
  await checkAddress(address);
  const serverOptions = serverOptionsOf(values, logger);
  const toolParser = await toolParserOf(values);
  const statLoggers = await openStatLoggers(values, logger);
  // The server's code loads while the engine's thread loads the model.
  const [loaded, { createApp }] = await Promise.all([
    loadEngine(
      model,
      { maxNumWaitingRequests: defaultMaxNumWaitingRequests, ...values.engine },
      (level, message) => logger[level](message),
    ),
    import('../server/app.js'),
  ]);
  try {
    const app = await createApp({
      engine: loaded.engine,
      options: { ...serverOptions, ...namesOf(values, loaded) },
      toolParser,
    });
    const url = await listen(app, address);
    if (values.command['keepAliveOnEngineDeath'] !== true) exitOnEngineDeath(app, logger);
    showStats(loaded.engine, values.command, logger, statLoggers);
    stopOnSignals(app, Number(values.command['shutdownTimeout'] ?? 0) * 1000, logger, statLoggers);
    process.stdout.write(startupReport(loaded, { url, options: app.tenon.options }));
    warnIfOpen(address, app.tenon.options.apiKeys, logger);
  } catch (error) {
    await loaded.engine.close();
    throw error;
  }
}

function addressOf({ host, port, uds }: Readonly<Record<string, OptionValue>>): Address {
  if (uds === undefined) return { host: String(host ?? defaultHost), port: Number(port ?? defaultPort) };
  if (host === undefined && port === undefined) return { path: String(uds) };
  throw new TenonError('config.invalid-option', '--uds excludes --host and --port; give one of them');
}

function serverOptionsOf({ server, command }: OptionValues, logger: Logger): Partial<ServerOptions> {
  const { chatTemplate, ...rest } = server;
  return {
    ...(rest as Partial<ServerOptions>),
    chatTemplate: chatTemplate === undefined ? undefined : readTemplate(String(chatTemplate)),
    accessLog: command['disableAccessLog'] !== true,
    logger,
  };
}

async function toolParserOf({ command, server, engine }: OptionValues): Promise<NamedToolParser | undefined> {
  const name = command['toolCallParser'];
  if (name !== undefined) {
    const { loadToolParser } = await import('../server/tool-calls/tool-parsers.js');
    const plugins = (engine['plugins'] ?? []) as readonly string[];
    return loadToolParser(String(name), { plugins, root: process.cwd() });
  }
  if (server['enableAutoToolChoice'] !== true) return undefined;
  const message =
    '--enable-auto-tool-choice needs --tool-call-parser: hermes, llama3_json, or that of a plugin';
  throw new TenonError('config.invalid-option', message);
}

function namesOf({ engine }: OptionValues, loaded: LoadedEngine): Pick<ServerOptions, 'servedModelNames'> {
  const given = engine['servedModelName'] as readonly string[] | undefined;
  return { servedModelNames: given ?? [loaded.engine.info.modelName] };
}

/** A file, or the template itself: that has braces. */
function readTemplate(fileOrTemplate: string): string {
  if (existsSync(fileOrTemplate)) return readFileSync(fileOrTemplate, 'utf8');
  if (/[{}\n]/.test(fileOrTemplate)) return fileOrTemplate;
  throw new TenonError(
    'config.invalid-option',
    `--chat-template is '${fileOrTemplate}'; expected a file that exists, or a Jinja template`,
  );
}

/** Those that `--stat-logger` names; undefined where it names none. */
async function openStatLoggers(
  { command, engine }: OptionValues,
  logger: Logger,
): Promise<StatLoggers | undefined> {
  const words = command['statLoggers'] as readonly string[] | undefined;
  if (words === undefined) return undefined;
  const [{ listExtensions }, { startStatLoggers }] = await Promise.all([
    import('../plugins/extensions.js'),
    import('../plugins/stat-loggers.js'),
  ]);
  const plugins = (engine['plugins'] ?? []) as readonly string[];
  const extensions = listExtensions({ plugins, root: process.cwd(), env: process.env });
  return startStatLoggers(words, extensions, (message) => logger.warn(message));
}

function showStats(
  engine: Engine,
  command: OptionValues['command'],
  logger: Logger,
  statLoggers: StatLoggers | undefined,
): void {
  const isSilent = command['disableLogStats'] === true;
  if (isSilent && statLoggers === undefined) return;
  const intervalMs = Number(command['logStatsInterval'] ?? defaultStatsSeconds) * 1000;
  const { modelName, device, dtype } = engine.info;
  const write: Parameters<typeof watchStats>[1] = (line, rates, interval) => {
    if (!isSilent) logger.info({ stats: rates }, line);
    statLoggers?.log({ timeMs: Date.now(), engine: { modelName, device, dtype }, ...rates, ...interval });
  };
  watchStats(engine, write, intervalMs);
}

function warnIfOpen(address: Address, apiKeys: readonly string[], logger: Logger): void {
  if ('path' in address || apiKeys.length > 0 || isLoopback(address.host)) return;
  logger.warn(
    `anyone who reaches ${address.host}:${address.port} can use this server; set --api-key to ask for a key`,
  );
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

/** The first signal ends gracefully, with status 0; the second at once. */
function stopOnSignals(
  app: FastifyInstance,
  timeoutMs: number,
  logger: Logger,
  statLoggers: StatLoggers | undefined,
): void {
  let isStopping = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (isStopping) exit(signal === 'SIGINT' ? 130 : 143, logger);
    isStopping = true;
    void stop(app, timeoutMs, logger, signal, statLoggers);
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
}

/** Whoever started the server can start it again; requests have failed by then. */
function exitOnEngineDeath(app: FastifyInstance, logger: Logger): void {
  app.tenon.engine.onDeath(async (error) => {
    logger.fatal({ err: error }, 'the engine died; the server ends with status 1');
    const { endAfterDeath } = await import('../server/shutdown.js');
    if (await endAfterDeath(app)) exit(1, logger);
    else kill(logger);
  });
}

function exit(status: number, logger: Logger): void {
  if (hasStuckThread()) kill(logger);
  else process.exit(status);
}

/** Exiting would wait for the engine's thread, and so for ever. */
function kill(logger: Logger): void {
  logger.warn('the engine thread hangs in the code of its backend; the process ends by SIGKILL');
  process.kill(process.pid, 'SIGKILL');
}

async function stop(
  app: FastifyInstance,
  timeoutMs: number,
  logger: Logger,
  signal: string,
  statLoggers: StatLoggers | undefined,
): Promise<void> {
  const { numActiveRequests } = app.tenon.state;
  logger.info(`${signal}: shutting down; ${numActiveRequests} running requests have ${timeoutMs / 1000} s`);
  try {
    const { shutDown } = await import('../server/shutdown.js');
    await shutDown(app, timeoutMs);
    await statLoggers?.close();
    exit(0, logger);
  } catch (error) {
    logger.error({ err: error }, 'shutting down failed');
    exit(1, logger);
  }
}
