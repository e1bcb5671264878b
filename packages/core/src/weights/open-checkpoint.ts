/** Opens a model: a folder as Hugging Face lays it out, a GGUF file, the id of either on a hub, or what a package finds. */
import { stat, readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Dtype, TensorLocation } from '../backend/index.js';
import { TenonError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import type { ModelOrigin } from '../models/model-origin.js';
import type { LoadedModel } from '../plugins/model-extensions.js';
import type { Checkpoint, TokenizerSource } from './checkpoint.js';
import { mergeOverrides, parseModelConfig } from './config.js';
import { Fields, type JsonObject } from './fields.js';
import { parseGenerationDefaults, parseGenerationEosTokenIds } from './generation-config.js';
import { ggufGenerationConfig, parseGgufModel } from './gguf-model.js';
import { readGguf } from './gguf.js';
import { parseHubModel, schemeOf, type DownloadOptions } from './hub-model.js';
import { tryReadJsonObject } from './json-file.js';
import { readNamed, readTensor, sameContents, stampFiles, verifyStamps } from './read-tensor.js';
import { readSafetensorsFolder } from './safetensors.js';
import { readTokenizerSource } from './tokenizer-source.js';

export interface OpenCheckpointOptions extends DownloadOptions {
  /** Laid over config.json; nested objects are merged. */
  readonly hfOverrides?: JsonObject;
  /** False: leave the tokenizer's files alone (`--skip-tokenizer-init`). */
  readonly tokenizer?: boolean;
  /** What installed packages add; nothing by default. */
  readonly extensions?: CheckpointExtensions | undefined;
}

export interface CheckpointExtensions {
  /** The package's model for one of these architectures, which config.json `raw` names. */
  findModel(
    architectures: readonly string[],
    raw: JsonObject,
    source: string,
  ): Promise<FoundModel | undefined>;
  /** The folder or file that `<scheme>://…` names, on this machine by then. */
  fetchModel(scheme: string, uri: string, options: DownloadOptions): Promise<string>;
}

export interface FoundModel {
  readonly origin: ModelOrigin;
  readonly model: LoadedModel;
}

/**
 * Reads configuration, tensor tables and tokenizer files; no weights.
 * @throws `config.model-not-found`, `config.model-invalid`, `config.weights-*`, `config.tokenizer-invalid`,
 * `config.download-failed` or `unsupported.*`, each saying what to do.
 */
export async function openCheckpoint(
  model: string,
  options: OpenCheckpointOptions = {},
): Promise<Checkpoint> {
  const path = await locateModel(model, options);
  const isFolder = (await stat(path)).isDirectory();
  return isFolder ? openFolder(path, options) : openGguf(path, options);
}

/** Only the tokenizer of a model, which needs no configuration and no weights (`--tokenizer`). */
export async function openTokenizerSource(
  model: string,
  options: Pick<OpenCheckpointOptions, keyof DownloadOptions | 'extensions'> = {},
): Promise<TokenizerSource> {
  const path = await locateModel(model, { ...options, tokenizerOnly: true });
  if ((await stat(path)).isDirectory()) return readTokenizerSource(path);
  return { kind: 'gguf', metadata: readGguf(path).metadata };
}

/** The model's folder or GGUF file on this machine, downloaded where it is not here. */
async function locateModel(model: string, options: OpenCheckpointOptions): Promise<string> {
  const found = await stat(model).catch(() => undefined);
  if (found?.isDirectory()) return ggufOfFolder(resolve(model));
  if (found !== undefined) return resolve(model);
  const scheme = schemeOf(model);
  if (scheme !== undefined && options.extensions !== undefined)
    return ggufOfFolder(await options.extensions.fetchModel(scheme, model, options));
  const hubModel = parseHubModel(model);
  if (hubModel === undefined) {
    throw new TenonError(
      'config.model-not-found',
      `no model '${model}': there is no folder or file ${resolve(model)}, and it is no hub id (org/name or org/name:file.gguf) and no <scheme>://… of a model source`,
      { param: 'model' },
    );
  }
  const { downloadModel } = await import('./hub.js');
  const checkConfig = async (folder: string) => void (await readConfig(folder, options));
  return ggufOfFolder(await downloadModel(hubModel, { ...options, checkConfig }));
}

/** A folder with one GGUF file and no config.json stands for that file. */
async function ggufOfFolder(path: string): Promise<string> {
  if ((await stat(path)).isFile()) return path;
  const names = await readdir(path);
  const ggufs = names.filter((name) => name.endsWith('.gguf'));
  const isModel = names.includes('config.json') || names.includes('tokenizer.json');
  if (isModel || ggufs.length === 0) return path;
  if (ggufs.length === 1) return join(path, ggufs[0]!);
  throw new TenonError(
    'config.model-not-found',
    `${path} holds ${ggufs.length} GGUF files; name one: ${ggufs.join(', ')}`,
    {
      param: 'model',
    },
  );
}

async function openFolder(path: string, options: OpenCheckpointOptions): Promise<Checkpoint> {
  const { raw, source, found } = await readConfig(path, options);
  const table = await readSafetensorsFolder(path);
  const stamps = await stampFiles(table.files);
  const parsed = parseConfig(raw, source, found, tensorDtype(table.locations));
  const named = withModelPrefix(found?.model.tensors(table.locations, parsed) ?? table.locations);
  const { config, locations } = await resolveTying(parsed, named);
  const generationFile = join(path, 'generation_config.json');
  const generation = (await tryReadJsonObject(generationFile, 'config.model-invalid')) ?? {};
  return {
    format: 'safetensors',
    path,
    config: withEosTokenIds(config, parseGenerationEosTokenIds(generation, generationFile)),
    modelOrigin: found?.origin,
    generationDefaults: parseGenerationDefaults(generation, generationFile),
    locations,
    foreignDtypes: table.foreignDtypes,
    tokenizerSource: options.tokenizer === false ? { kind: 'none' } : await readTokenizerSource(path),
    read: (name) => readNamed(locations, name, path),
    verifyUnchanged: () => verifyStamps(stamps),
  };
}

async function openGguf(path: string, options: OpenCheckpointOptions): Promise<Checkpoint> {
  if (path.endsWith('.safetensors') || path.endsWith('.json')) {
    throw new TenonError('config.model-not-found', `${path} is a file of a model; name its folder instead`, {
      param: 'model',
    });
  }
  const stamps = await stampFiles([path]);
  const gguf = readGguf(path);
  const { config, locations, ropeFactors } = parseGgufModel(gguf, options.hfOverrides ?? {});
  return {
    format: 'gguf',
    path,
    config: ropeFactors === undefined ? config : await withRopeFactors(config, ropeFactors),
    generationDefaults: parseGenerationDefaults(ggufGenerationConfig(gguf), path),
    locations,
    foreignDtypes: new Map(),
    tokenizerSource:
      options.tokenizer === false ? { kind: 'none' } : { kind: 'gguf', metadata: gguf.metadata },
    read: (name) => readNamed(locations, name, path),
    verifyUnchanged: () => verifyStamps(stamps),
  };
}

/** config.json with the overrides, checked but for what the tensors decide. */
async function readConfig(
  folder: string,
  options: OpenCheckpointOptions,
): Promise<{ readonly raw: JsonObject; readonly source: string; readonly found: FoundModel | undefined }> {
  const source = join(folder, 'config.json');
  const config = await tryReadJsonObject(source, 'config.model-invalid');
  if (config === undefined) {
    throw new TenonError(
      'config.model-not-found',
      `${folder} is no model: it has neither config.json nor a .gguf file`,
      {
        param: 'model',
      },
    );
  }
  const raw = mergeOverrides(config, options.hfOverrides ?? {});
  const architectures = new Fields(raw, source).strings('architectures') ?? [];
  const found = await options.extensions?.findModel(architectures, raw, source);
  parseConfig(raw, source, found);
  return { raw, source, found };
}

function parseConfig(
  raw: JsonObject,
  source: string,
  found: FoundModel | undefined,
  tensorDtype?: Dtype,
): ModelConfig {
  const foreignArchitecture = found?.origin.extension.name;
  return parseModelConfig(found?.model.config() ?? raw, { source, tensorDtype, foreignArchitecture });
}

const embeddingName = 'model.embed_tokens.weight';
const headName = 'lm_head.weight';

/** Checkpoints saved from the bare model, without its head, lack the prefix `model.`. */
function withModelPrefix(
  locations: ReadonlyMap<string, TensorLocation>,
): ReadonlyMap<string, TensorLocation> {
  if (locations.has(embeddingName) || !locations.has('embed_tokens.weight')) return locations;
  const renamed = [...locations.values()].map((location) => {
    const name = location.name === headName ? headName : `model.${location.name}`;
    return [name, { ...location, name }] as const;
  });
  return new Map(renamed);
}

/**
 * tie_word_embeddings as the tensors have it: with one of the two matrices, both uses share it; with two different
 * ones, each has its own, whatever config.json says. (transformers does the same.)
 */
async function resolveTying(
  config: ModelConfig,
  locations: ReadonlyMap<string, TensorLocation>,
): Promise<{ config: ModelConfig; locations: ReadonlyMap<string, TensorLocation> }> {
  const embedding = locations.get(embeddingName);
  const head = locations.get(headName);
  if (embedding === undefined && head !== undefined && config.tieWordEmbeddings) {
    return { config, locations: new Map([...locations, [embeddingName, { ...head, name: embeddingName }]]) };
  }
  if (embedding === undefined) return { config, locations };
  const tied = head === undefined || (config.tieWordEmbeddings && (await sameContents(embedding, head)));
  return { config: { ...config, tieWordEmbeddings: tied }, locations };
}

/** The type of the first matrix, for a config.json that names none. */
function tensorDtype(locations: ReadonlyMap<string, TensorLocation>): Dtype | undefined {
  const dtype = locations.values().next().value?.dtype;
  if (dtype === 'F32') return 'f32';
  if (dtype === 'F16') return 'f16';
  return dtype === 'BF16' ? 'bf16' : undefined;
}

function withEosTokenIds(config: ModelConfig, more: readonly number[]): ModelConfig {
  return { ...config, eosTokenIds: [...new Set([...config.eosTokenIds, ...more])] };
}

async function withRopeFactors(config: ModelConfig, location: TensorLocation): Promise<ModelConfig> {
  const factors = await readTensor(location);
  if (factors.every((factor) => factor > 0)) return { ...config, ropeScaling: { type: 'factors', factors } };
  throw new TenonError(
    'config.weights-invalid',
    `${location.file}: ${location.name} has values that are not positive`,
  );
}
