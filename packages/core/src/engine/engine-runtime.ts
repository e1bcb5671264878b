/** Everything below the scheduler: chooses the device, sizes the run, loads the model, and runs the core on it. */
import {
  type Backend, type BackendModule, type DeviceGroup, type DeviceInfo, type Dtype, type Host, type Plan,
  type SchedulingConstraints,
} from '../backend/index.js'; // prettier-ignore
import { CaptureKeys } from '../batch/capture-keys.js';
import { modelLength } from '../config/model-length.js';
import {
  fitKvSize,
  resolveKvSize,
  resolveStepLimits,
  resolveStepTimeoutMs,
  type MemoryNeeds,
  type StepLimits,
} from '../config/engine-limits.js';
import type { EngineConfig } from '../config/engine-options.js';
import { asTenonError, TenonError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import type { ModelOrigin } from '../models/model-origin.js';
import type { ChosenDevice } from '../plugins/choose-device.js';
import { loadModelExtension } from '../plugins/model-extensions.js';
import type { BackendReport } from '../plugins/survey.js';
import { buildPlan } from '../program/build-plan.js';
import { explain, numElements, planBytes } from '../program/explain.js';
import type { Checkpoint } from '../weights/checkpoint.js';
import { requireTensors } from '../weights/require-tensors.js';
import type { FromCore, ToCore } from './core-messages.js';
import { endsWithin } from './ends-within.js';
import { EngineCore, stepWriterOptions, type EngineCoreOptions } from './engine-core.js';
import { findDevice, openGroup, type PlanOn } from './find-device.js';
import { LoadWatch } from './load-watch.js';
import { WarmUp } from './warm-up.js';
import { loadLogitsProcessors } from './load-logits-processors.js';
import { LogitsProcessors, type NamedProcessor } from './logits-processors.js';
import type { LoadedLogitsProcessor } from './types.js';

export interface RuntimeOptions {
  readonly config: EngineConfig;
  readonly model: ModelConfig;
  /** The package that the model's code comes from, if not from Tenon itself. */
  readonly modelOrigin?: ModelOrigin | undefined;
  /** Where the search for plugins begins. */
  readonly root: string;
  /** What a search for backends has found. */
  readonly backends: readonly BackendReport[];
}

export interface RuntimeHost extends Host {
  /** A backend given as an object, instead of a search. */
  readonly backend?: BackendModule;
  readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
}

/** The checkpoint's tensors. */
export type ModelWeights = Pick<Checkpoint, 'path' | 'locations' | 'foreignDtypes' | 'read'>;

/** What the front end needs to know; plain data. */
export interface RuntimeInfo {
  readonly device: Pick<DeviceInfo, 'id' | 'name' | 'class'>;
  readonly backend: Pick<Backend['info'], 'id' | 'version' | 'runtime'>;
  readonly dtype: Dtype;
  readonly limits: StepLimits;
  readonly maxModelLen: number;
  readonly numBlocks: number;
  readonly weightsBytes: number;
  readonly arenaBytes: number;
  readonly kvBytes: number;
  readonly stepTimeoutMs: number;
  readonly logitsProcessors: readonly LoadedLogitsProcessor[];
  /** `tenon explain`'s text. */
  readonly explanation: string;
}

export interface Runtime {
  readonly info: RuntimeInfo;
  receive(message: ToCore): void;
  /** Lets the steps in flight end, then frees the device. */
  close(): Promise<void>;
  /** As close, but steps in flight are not waited for. */
  abandon(): void;
}

/** Enough that the main thread's pauses are not felt. */
const maxUnreadOutputs = 8;

/** Long enough for freeing what a model takes. */
const closeTimeoutMs = 5000;

/** Words that a step's result may have (64 MiB), as long as one row of the whole vocabulary needs no more. */
const maxResultWords = 1 << 24;

export async function startRuntime(
  options: RuntimeOptions,
  weights: ModelWeights,
  host: RuntimeHost,
  send: (message: FromCore) => void,
): Promise<Runtime> {
  const { config, root } = options;
  const processors = await loadLogitsProcessors({
    names: config.logitsProcessors,
    plugins: config.plugins,
    root,
  });
  const chosen = await findDevice(options, host, planOn(options, weights));
  const group = await openGroup(options, chosen);
  try {
    const draft = await draftRun(options, chosen, group, weights);
    requireTensors(weights, draft.plan.weights);
    return await load(
      options,
      sizeRun(options, chosen, draft, processors),
      group,
      weights,
      host,
      send,
      processors,
    );
  } catch (error) {
    // A device that hangs may never close.
    await endsWithin(group.close(), closeTimeoutMs);
    throw error;
  }
}

/**
 * The choice of the device and the plan as text, without loading a weight. That the device has too little memory for it is
 * the text's last line, not an error.
 */
export async function explainRuntime(
  options: RuntimeOptions,
  weights: ModelWeights,
  host: RuntimeHost,
): Promise<string> {
  const chosen = await findDevice(options, host, planOn(options, weights), { explains: true });
  const group = await openGroup(options, chosen);
  try {
    const draft = await draftRun(options, chosen, group, weights);
    requireTensors(weights, draft.plan.weights);
    const misfit = whyItDoesNotFit(options, chosen, draft);
    const choice = chosen.explanation.map((line) => `${line}\n`).join('');
    const end = misfit === undefined ? '' : `\ncannot run ${misfit.message}`;
    return `${choice}${choice && '\n'}${draft.explanation}${end}`;
  } finally {
    await group.close();
  }
}

const planOn = (options: RuntimeOptions, weights: ModelWeights): PlanOn => {
  return async (chosen, group) =>
    whyItDoesNotFit(options, chosen, await draftRun(options, chosen, group, weights));
};

function whyItDoesNotFit(
  options: RuntimeOptions,
  chosen: ChosenDevice,
  draft: DraftRun,
): TenonError | undefined {
  try {
    sizeRun(options, chosen, draft);
    return undefined;
  } catch (error) {
    return asTenonError(error);
  }
}

function chooseDtype(config: EngineConfig, device: DeviceInfo): Dtype {
  const dtype = config.dtype ?? device.preferredDtype;
  if (device.dtypes.includes(dtype)) return dtype;
  const message = `device ${device.id} cannot compute in ${dtype}; it has ${device.dtypes.join(', ')}`;
  throw new TenonError('unsupported.dtype', message, { param: 'dtype' });
}

/** A plan whose KV cache has no size yet. */
interface DraftRun {
  readonly plan: Plan;
  readonly explanation: string;
  readonly dtype: Dtype;
  readonly limits: StepLimits;
  /** KV bytes of one block, all layers together. */
  readonly blockBytes: number;
}

async function draftRun(
  { config, model, modelOrigin }: RuntimeOptions,
  { device }: ChosenDevice,
  group: DeviceGroup,
  { locations }: ModelWeights,
): Promise<DraftRun> {
  const foreign = modelOrigin === undefined ? undefined : await loadModelExtension(modelOrigin);
  const dtype = chooseDtype(config, device);
  const wantedLength = typeof config.maxModelLen === 'number' ? config.maxModelLen : modelLength(model);
  const limits = resolveStepLimits(config, group.constraints, wantedLength);
  const { blockSize, maxNumSeqs, maxNumBatchedTokens } = limits;
  const planLimits = {
    maxTokens: maxNumBatchedTokens,
    maxSeqs: maxNumSeqs,
    maxLogitRows: maxNumBatchedTokens,
    maxModelLen: wantedLength,
    blockSize,
    numBlocks: 1,
    vocabSize: model.vocabSize,
  };
  const { plan, negotiation } = await buildPlan(
    model,
    dtype,
    group,
    planLimits,
    config.unpacksWeights ? new Map() : locations,
    foreign?.record,
  );
  const blockBytes = plan.kvLayers.reduce((sum, layer) => sum + group.kvBlockBytes(layer, blockSize), 0);
  return { plan, explanation: explain(plan, negotiation), dtype, limits, blockBytes };
}

/** A run before its model is loaded. */
interface SizedRun {
  readonly plan: Plan;
  readonly info: RuntimeInfo;
  readonly needs: MemoryNeeds;
  /** Given: the plan's KV blocks are the most there may be, as so much of the device's memory is to stay free. */
  readonly spareBytes?: number | undefined;
}

/** The plan, with as many KV blocks as there is memory for. */
function sizeRun(
  { config, model }: RuntimeOptions,
  { backend, device }: ChosenDevice,
  { plan, explanation, dtype, limits, blockBytes }: DraftRun,
  processors: readonly NamedProcessor[] = [],
): SizedRun {
  const bytes = planBytes(plan);
  const needs: MemoryNeeds = {
    device,
    weightsBytes: bytes.weights,
    arenaBytes: bytes.arena,
    blockBytes,
    blockSize: limits.blockSize,
    maxNumSeqs: limits.maxNumSeqs,
    modelLength: modelLength(model),
  };
  const { spareBytes, ...size } = resolveKvSize(config, needs);
  const info: RuntimeInfo = {
    device: { id: device.id, name: device.name, class: device.class },
    backend: { id: backend.info.id, version: backend.info.version, runtime: backend.info.runtime },
    dtype,
    limits,
    ...size,
    weightsBytes: bytes.weights,
    arenaBytes: bytes.arena,
    kvBytes: size.numBlocks * blockBytes,
    stepTimeoutMs: resolveStepTimeoutMs(
      config,
      limits,
      plan.weights.reduce((sum, weight) => sum + numElements(weight), 0),
    ),
    logitsProcessors: processors.map(({ name, extension }) => ({ name, args: [...extension.args] })),
    explanation,
  };
  return { plan: { ...plan, limits: { ...plan.limits, ...size } }, info, needs, spareBytes };
}

/** What there is once the model is loaded: as many KV blocks as the device had room for. */
function fitRun(
  { config }: RuntimeOptions,
  { info, needs }: SizedRun,
  numBlocks = info.numBlocks,
): RuntimeInfo {
  return { ...info, ...fitKvSize(config, needs, numBlocks), kvBytes: numBlocks * needs.blockBytes };
}

async function load(
  options: RuntimeOptions,
  run: SizedRun,
  group: DeviceGroup,
  weights: ModelWeights,
  host: RuntimeHost,
  send: (message: FromCore) => void,
  processors: readonly NamedProcessor[],
): Promise<Runtime> {
  let warmUp: WarmUp | undefined;
  const watch = new LoadWatch(options.config.loadTimeout * 1000);
  let core: EngineCore | undefined;
  const loading = group.load(run.plan, weights, {
    ...(run.spareBytes !== undefined && { spareBytes: run.spareBytes }),
    onProgress: (loadedBytes, totalBytes) => {
      watch.progress();
      host.onProgress?.(loadedBytes, totalBytes);
    },
    onStepDone: (stepId, error) =>
      core === undefined ? warmUp?.stepDone(error) : core.stepDone(stepId, error),
  });
  const executable = await watch.wait(loading).catch((error: unknown) => {
    throw loadError(run.info, error);
  });
  const info = fitRun(options, run, executable.numBlocks);
  const engineOptions: EngineCoreOptions = {
    ...coreOptions(options, info, group.constraints),
    logitsProcessors:
      processors.length === 0
        ? undefined
        : new LogitsProcessors(processors, options.model.vocabSize, info.maxModelLen),
  };
  if (group.constraints.warmup === true) {
    warmUp = new WarmUp(stepWriterOptions(engineOptions), info.stepTimeoutMs);
    await warmUp.run(executable);
  }
  const running = new EngineCore(engineOptions, executable, send);
  core = running;
  const free = async (): Promise<void> => {
    await executable.close();
    await group.close();
  };
  let closing: Promise<void> | undefined;
  return {
    info,
    receive: (message) => running.receive(message),
    close: () => (closing ??= running.close().then(free)),
    abandon: () => running.abandon(),
  };
}

/** What a backend throws without one of our codes is a bug of its own. */
function loadError({ backend }: RuntimeInfo, thrown: unknown): TenonError {
  const error = asTenonError(thrown);
  if (error.kind !== 'internal') return error;
  const message = `backend ${backend.id} failed while loading: ${error.message}; update it, or tell its authors`;
  return new TenonError('backend.load-failed', message, { cause: thrown });
}

function coreOptions(
  { config, model }: RuntimeOptions,
  { limits, numBlocks, maxModelLen }: RuntimeInfo,
  constraints: SchedulingConstraints,
): EngineCoreOptions {
  return {
    scheduler: {
      maxNumSeqs: limits.maxNumSeqs,
      maxNumBatchedTokens: limits.maxNumBatchedTokens,
      maxPromptTokensBesideDecodes: limits.maxPromptTokensBesideDecodes,
      enableChunkedPrefill: limits.enableChunkedPrefill,
      longPrefillTokenThreshold: limits.longPrefillTokenThreshold,
      mixedPrefillDecode: constraints.mixedPrefillDecode,
      maxResultWords: Math.max(maxResultWords, 3 + 2 * model.vocabSize),
    },
    numBlocks,
    blockSize: limits.blockSize,
    watermarkBlocks: Math.floor(config.watermark * numBlocks),
    maxModelLen,
    enablePrefixCaching: config.enablePrefixCaching,
    // Beyond its original length, a prompt of dynamic rope is rotated by its whole length (docs/decisions/0005).
    sharedPromptLength:
      model.ropeScaling.type === 'dynamic' ? model.ropeScaling.originalMaxPosition : Infinity,
    stepsInFlight: limits.stepsInFlight,
    maxUnreadOutputs,
    reportsBegun: config.restartOnDeviceLoss,
    tokenBuckets: constraints.tokenBuckets,
    decodeBuckets: constraints.decodeBuckets ?? [],
    captureKeys: constraints.capture === true ? new CaptureKeys() : undefined,
    wholePrompts: constraints.chunkedPrefill === false,
  };
}
