/** Entry of a stat logger's worker thread: makes the logger, then hands it one report at a time. */
import { parentPort, workerData } from 'node:worker_threads';
import { asTenonError, invariant } from '../errors.js';
import type { StatLogger, StatLoggerExtension } from '../extensions/index.js';
import { importExtension, invalid } from './extensions.js';
import type { FromStatLogger, StatLoggerThreadData, ToStatLogger } from './stat-logger-messages.js';

const port = parentPort;
invariant(port !== null, 'stat-logger-thread runs as a worker only');
const { extension, argument } = workerData as StatLoggerThreadData;

const post = (message: FromStatLogger): void => port.postMessage(message);
const messageOf = (error: unknown): string => asTenonError(error).message;

async function makeLogger(): Promise<StatLogger> {
  const { create } = await importExtension(extension);
  const logger = await makeWith(create);
  if (typeof logger?.log === 'function') return logger as StatLogger;
  throw invalid(extension, 'its create gives no object with a function log');
}

async function makeWith(create: StatLoggerExtension['create']): Promise<Partial<StatLogger> | undefined> {
  try {
    return await create({ argument });
  } catch (error) {
    throw invalid(extension, `its create failed: ${messageOf(error)}`, error);
  }
}

async function log(logger: StatLogger, message: Extract<ToStatLogger, { type: 'log' }>): Promise<void> {
  try {
    await logger.log(message.report);
    post({ type: 'logged', error: undefined });
  } catch (error) {
    post({ type: 'logged', error: messageOf(error) });
  }
}

async function close(logger: StatLogger): Promise<void> {
  try {
    await logger.close?.();
  } catch (error) {
    post({ type: 'logged', error: messageOf(error) });
  }
  port!.close();
}

try {
  const logger = await makeLogger();
  port.on('message', (message: ToStatLogger) => {
    void (message.type === 'close' ? close(logger) : log(logger, message));
  });
  post({ type: 'ready' });
} catch (error) {
  post({ type: 'unusable', error: asTenonError(error).toJSON() });
}
