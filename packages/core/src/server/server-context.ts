/** What every route is given. */
import { createHash } from 'node:crypto';

import type { Engine } from '../engine/types.js';
import { tenonVersion } from '../version.js';
import { GenerationLog } from './generation-log.js';
import type { ServerOptions } from './server-options.js';
import type { NamedToolParser } from './tool-calls/tool-parsers.js';

export interface ServerContext {
  readonly engine: Engine;
  readonly options: ServerOptions;
  /** --tool-call-parser. */
  readonly toolParser: NamedToolParser | undefined;
  /** Unix time, seconds. */
  readonly startedAt: number;
  readonly systemFingerprint: string;
  readonly state: ServerState;
  /** Undefined without --log-requests. */
  readonly generationLog: GenerationLog | undefined;
}

export interface ServerState {
  /** True from the first shutdown signal on: health is red, new requests are refused. */
  shuttingDown: boolean;
  /** Generation requests being answered now. */
  numActiveRequests: number;
}

export function createServerContext(
  engine: Engine,
  options: ServerOptions,
  toolParser?: NamedToolParser,
): ServerContext {
  return {
    engine,
    options,
    toolParser,
    startedAt: Math.floor(Date.now() / 1000),
    systemFingerprint: systemFingerprint(engine, options),
    state: { shuttingDown: false, numActiveRequests: 0 },
    generationLog: generationLog(engine, options),
  };
}

function generationLog(engine: Engine, options: ServerOptions): GenerationLog | undefined {
  const { logRequests, logger, maxLogLen } = options;
  return logRequests && logger !== undefined ? new GenerationLog(engine, logger, maxLogLen) : undefined;
}

/** `tenon-<version>-<parallelism>-<hash>`: equal fingerprints give equal answers to seeded requests. */
function systemFingerprint(engine: Engine, options: ServerOptions): string {
  const { modelName, architecture, dtype, device, backend, blockSize } = engine.info;
  const facts = [modelName, architecture, dtype, device, backend, blockSize];
  const hash = createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 8);
  return `tenon-${tenonVersion}-${options.parallelism}-${hash}`;
}
