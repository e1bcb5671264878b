/** Composes an engine: the one place that knows which parts it is made of. */
import 'reflect-metadata';
import { container, type DependencyContainer, type InjectionToken } from 'tsyringe';
import type { BackendModule } from './backend/index.js';
import { parseEngineOptions, type EngineConfig, type EngineOptions } from './config/engine-options.js';
import { startInProcess, startInThread, type StartedCore } from './engine/core-link.js';
import { EngineClient } from './engine/engine-client.js';
import {
  explainRuntime,
  type RuntimeHost,
  type RuntimeInfo,
  type RuntimeOptions,
} from './engine/engine-runtime.js';
import type { CoreLink } from './engine/link.js';
import { RestartingLink } from './engine/restarting-link.js';
import { checkSameRun, sameRunConfig } from './engine/same-run.js';
import type { Engine, EngineInfo } from './engine/types.js';
import { asTenonError } from './errors.js';
import { checkpointExtensions } from './plugins/checkpoint-extensions.js';
import { listExtensions } from './plugins/extensions.js';
import { startTimeoutMs, surveyBackends, type BackendReport } from './plugins/survey.js';
import { loadTokenizer } from './tokenizer/load-tokenizer.js';
import type { Tokenizer } from './tokenizer/types.js';
import type { Checkpoint } from './weights/checkpoint.js';
import {
  openCheckpoint,
  openTokenizerSource,
  type CheckpointExtensions,
  type OpenCheckpointOptions,
} from './weights/open-checkpoint.js';

/** What surrounds an engine, besides its options. */
export interface EngineHost {
  /** Run the core in this thread. For tests; serving uses a worker thread. */
  readonly inProcess?: boolean;
  /** A backend as an object, instead of a search for packages; it runs in this thread. */
  readonly backend?: BackendModule;
  /** Where the search for backend packages begins; the working directory by default. */
  readonly root?: string;
  /** What such a search has found, where it was made before. */
  readonly backends?: Promise<readonly BackendReport[]>;
  readonly log?: (level: 'debug' | 'info' | 'warn', message: string) => void;
  /** Bytes of weights loaded so far. */
  readonly onLoadProgress?: (loadedBytes: number, totalBytes: number) => void;
  readonly onDownloadProgress?: OpenCheckpointOptions['onProgress'];
}

/** An engine, and what was decided while loading it. */
export interface LoadedEngine {
  readonly engine: Engine;
  readonly runtime: RuntimeInfo;
}

const tokens = {
  config: Symbol('EngineConfig') as InjectionToken<EngineConfig>,
  host: Symbol('EngineHost') as InjectionToken<EngineHost>,
  modelName: Symbol('modelName') as InjectionToken<string>,
  checkpoint: Symbol('Checkpoint') as InjectionToken<Checkpoint>,
  backends: Symbol('BackendReports') as InjectionToken<readonly BackendReport[]>,
  tokenizer: Symbol('Tokenizer') as InjectionToken<{ readonly tokenizer: Tokenizer | undefined }>,
  runtime: Symbol('RuntimeInfo') as InjectionToken<RuntimeInfo>,
};

/**
 * Loads a model: a folder, a GGUF file or a hub id.
 * @throws TenonError of kind config, capacity or unsupported, saying what to do.
 */
export async function createEngine(
  model: string,
  options: EngineOptions = {},
  host: EngineHost = {},
): Promise<LoadedEngine> {
  const parts = container.createChildContainer();
  const config = parseEngineOptions(options);
  parts.register(tokens.config, { useValue: config });
  parts.register(tokens.host, { useValue: host });
  parts.register(tokens.modelName, { useValue: config.servedModelNames[0] ?? model });
  const { checkpoint, backends } = await openAll(model, config, host);
  parts.register(tokens.checkpoint, { useValue: checkpoint });
  parts.register(tokens.backends, { useValue: backends });
  const [core, tokenizer] = await settleBoth(startCore(parts), openTokenizer(parts));
  parts.register(tokens.runtime, { useValue: core.info });
  parts.register(tokens.tokenizer, { useValue: { tokenizer } });
  return { engine: makeClient(parts, core.link), runtime: core.info };
}

/**
 * How a model would run, as text: its plan, from the checkpoint's headers alone. Loads no weights.
 * @throws TenonError of kind config or unsupported, saying what to do.
 */
export async function explainModel(
  model: string,
  options: EngineOptions = {},
  host: EngineHost = {},
): Promise<string> {
  const config = parseEngineOptions({ ...options, skipTokenizerInit: true });
  const { checkpoint, backends } = await openAll(model, config, host);
  return explainRuntime(runtimeOptions(config, checkpoint, host, backends), checkpoint, runtimeHost(host));
}

interface Opened {
  readonly checkpoint: Checkpoint;
  readonly backends: readonly BackendReport[];
}

/** Reads the model's headers while the backends are probed. What is wrong with the model is told first, and at once. */
async function openAll(model: string, config: EngineConfig, host: EngineHost): Promise<Opened> {
  const ending = new AbortController();
  const surveying = host.backends ?? survey(config, host, ending.signal);
  surveying.catch(() => {});
  try {
    const checkpoint = await openModel(model, config, host);
    return { checkpoint, backends: await surveying };
  } finally {
    ending.abort();
  }
}

async function survey(
  { plugins, device }: EngineConfig,
  host: EngineHost,
  signal: AbortSignal,
): Promise<readonly BackendReport[]> {
  if (host.backend !== undefined) return [];
  const root = host.root ?? process.cwd();
  return surveyBackends({ plugins, device, root, env: process.env, timeoutMs: startTimeoutMs, signal });
}

function openModel(model: string, config: EngineConfig, host: EngineHost): Promise<Checkpoint> {
  return openCheckpoint(model, {
    revision: config.revision,
    downloadDir: config.downloadDir,
    hfOverrides: config.hfOverrides,
    tokenizer: !config.skipTokenizerInit && config.tokenizer === undefined,
    extensions: extensionsOf(config, host),
    onProgress: host.onDownloadProgress,
    onNotice: (message) => host.log?.('warn', message),
  });
}

/** Models and model sources of the application's packages. */
function extensionsOf({ plugins }: EngineConfig, host: EngineHost): CheckpointExtensions {
  const extensions = listExtensions({ plugins, root: host.root ?? process.cwd(), env: process.env });
  return checkpointExtensions(extensions, (message) => host.log?.('warn', message));
}

/** The core whose place another takes. */
interface LostCore {
  readonly info: RuntimeInfo;
  /** Nobody waits for the other one any more. */
  readonly signal: AbortSignal;
}

/** Weights that changed while they were loaded are refused. */
async function startCore(parts: DependencyContainer, lost?: LostCore): Promise<StartedCore> {
  const host = parts.resolve(tokens.host);
  const checkpoint = parts.resolve(tokens.checkpoint);
  const config = parts.resolve(tokens.config);
  const options =
    lost === undefined
      ? runtimeOptions(config, checkpoint, host, parts.resolve(tokens.backends))
      : await runtimeOptionsAgain(config, checkpoint, host, lost);
  const start = host.inProcess === true || host.backend !== undefined ? startInProcess : startInThread;
  const core = await start(options, checkpoint, runtimeHost(host, lost), lost?.signal);
  try {
    await checkpoint.verifyUnchanged();
    if (lost !== undefined) checkSameRun(lost.info, core.info);
  } catch (error) {
    await core.link.close();
    throw error;
  }
  return core;
}

function runtimeOptions(
  config: EngineConfig,
  checkpoint: Checkpoint,
  host: EngineHost,
  backends: readonly BackendReport[],
): RuntimeOptions {
  const { config: model, modelOrigin } = checkpoint;
  return { config, model, modelOrigin, root: host.root ?? process.cwd(), backends };
}

/** What a backend does with a lost device is seen in a probe first, as before the first start. */
async function runtimeOptionsAgain(
  config: EngineConfig,
  checkpoint: Checkpoint,
  host: EngineHost,
  { info, signal }: LostCore,
): Promise<RuntimeOptions> {
  const sameConfig = sameRunConfig(config, info);
  return runtimeOptions(sameConfig, checkpoint, host, await survey(sameConfig, host, signal));
}

/** Progress is shown of the first start only. */
function runtimeHost(host: EngineHost, lost?: LostCore): RuntimeHost {
  return {
    log: (level, message) => host.log?.(level, message),
    onProgress: lost === undefined ? host.onLoadProgress : undefined,
    backend: host.backend,
  };
}

/** Undefined where there are no tokenizer files or none are wanted. */
async function openTokenizer(parts: DependencyContainer): Promise<Tokenizer | undefined> {
  const config = parts.resolve(tokens.config);
  if (config.skipTokenizerInit) return undefined;
  const host = parts.resolve(tokens.host);
  const { tokenizer: elsewhere, revision, downloadDir } = config;
  const own = parts.resolve(tokens.checkpoint);
  return loadTokenizer(
    elsewhere === undefined
      ? own.tokenizerSource
      : await openTokenizerSource(elsewhere, {
          revision,
          downloadDir,
          extensions: extensionsOf(config, host),
        }),
  );
}

/** Both, or the first error after what the other made has been closed. */
async function settleBoth(
  starting: Promise<StartedCore>,
  opening: Promise<Tokenizer | undefined>,
): Promise<[StartedCore, Tokenizer | undefined]> {
  const [core, tokenizer] = await Promise.allSettled([starting, opening]);
  if (core.status === 'fulfilled' && tokenizer.status === 'fulfilled') return [core.value, tokenizer.value];
  if (core.status === 'fulfilled') await core.value.link.close();
  if (tokenizer.status === 'fulfilled') await tokenizer.value?.close();
  throw asTenonError(core.status === 'rejected' ? core.reason : (tokenizer as PromiseRejectedResult).reason);
}

function makeClient(parts: DependencyContainer, link: CoreLink): Engine {
  const config = parts.resolve(tokens.config);
  const checkpoint = parts.resolve(tokens.checkpoint);
  const info = parts.resolve(tokens.runtime);
  const { tokenizer } = parts.resolve(tokens.tokenizer);
  return new EngineClient(
    {
      info: engineInfo(parts.resolve(tokens.modelName), config, checkpoint, info),
      tokenizer,
      defaultSamplingParams: config.usesGenerationConfig ? checkpoint.generationDefaults : {},
      eosTokenIds: endTokens(tokenizer, checkpoint),
      processedLogprobs: config.logprobsMode === 'processed_logprobs',
      seed: config.seed,
      stepTimeoutMs: info.stepTimeoutMs,
      maxNumWaitingRequests: config.maxNumWaitingRequests,
    },
    lastingLink(parts, link),
  );
}

/** The link itself, or one that survives it. */
function lastingLink(parts: DependencyContainer, link: CoreLink): CoreLink {
  const info = parts.resolve(tokens.runtime);
  if (!parts.resolve(tokens.config).restartOnDeviceLoss) return link;
  return new RestartingLink(link, {
    device: info.device.id,
    start: async (signal) => (await startCore(parts, { info, signal })).link,
    log: runtimeHost(parts.resolve(tokens.host)).log,
  });
}

/** The tokenizer's end token is the end of sequence; the model's others end an answer as stop tokens do. */
function endTokens(tokenizer: Tokenizer | undefined, { config }: Checkpoint): number[] {
  const own = tokenizer?.eosTokenId;
  return [...new Set([...(own === undefined ? [] : [own]), ...config.eosTokenIds])];
}

function engineInfo(
  modelName: string,
  config: EngineConfig,
  checkpoint: Checkpoint,
  info: RuntimeInfo,
): EngineInfo {
  return {
    modelName,
    modelPath: checkpoint.path,
    architecture: checkpoint.config.architecture,
    dtype: info.dtype,
    device: info.device.id,
    backend: info.backend,
    vocabSize: checkpoint.config.vocabSize,
    maxModelLen: info.maxModelLen,
    blockSize: info.limits.blockSize,
    numBlocks: info.numBlocks,
    maxNumSeqs: info.limits.maxNumSeqs,
    maxNumBatchedTokens: info.limits.maxNumBatchedTokens,
    maxLogprobs: config.maxLogprobs,
    enablePrefixCaching: config.enablePrefixCaching,
    gpuMemoryUtilization: config.gpuMemoryUtilization,
    kvCacheMemoryBytes: config.kvCacheMemoryBytes,
    numGpuBlocksOverride: config.numGpuBlocksOverride,
    weightsBytes: info.weightsBytes,
    kvBytes: info.kvBytes,
    priorityScheduling: config.schedulingPolicy === 'priority',
    logitsProcessors: info.logitsProcessors,
  };
}
