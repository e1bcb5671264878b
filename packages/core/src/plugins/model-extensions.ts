/** Models from packages: which one runs a checkpoint, and its functions with their errors told from ours. */
import type { TensorLocation } from '../backend/index.js';
import { asTenonError, bugNote, TenonError } from '../errors.js';
import type { ModelExtension } from '../extensions/index.js';
import type { ModelConfig } from '../models/model-config.js';
import type { ModelOrigin } from '../models/model-origin.js';
import { models, recordWith, type RecordModel } from '../models/registry.js';
import { Fields, isJsonObject, type JsonObject } from '../weights/fields.js';
import { importExtension, invalid, type Extension } from './extensions.js';

type FoundModel = ModelOrigin['extension'];

/**
 * The package's model for one of a checkpoint's architectures. Where Tenon has the architecture itself, only that of a
 * package which the user has named counts; of others, `warn` is told.
 * @throws `config.extension-invalid` where the only one there is cannot be used.
 */
export function findModelExtension(
  architectures: readonly string[],
  extensions: readonly Extension[],
  warn: (message: string) => void,
): FoundModel | undefined {
  const found = extensions.filter(
    (extension): extension is FoundModel =>
      extension.kind === 'models' && architectures.includes(extension.name),
  );
  const named = found.find(({ source }) => source === 'option');
  if (named !== undefined) return usable(named);
  if (architectures.some((name) => Object.hasOwn(models, name))) {
    for (const { state, name, packageName } of found)
      if (state === 'ok') warn(`the model ${name} of ${packageName} is not used, as Tenon has its own; to use it, name the package with --plugin`); // prettier-ignore
    return undefined;
  }
  const first = found.find(({ state }) => state === 'ok') ?? found[0];
  return first === undefined ? undefined : usable(first);
}

function usable(extension: FoundModel): FoundModel {
  if (extension.state !== 'ok') throw invalid(extension, extension.problem!);
  return extension;
}

/** The package's functions, none of which throws anything but a TenonError that names the package. */
export interface LoadedModel {
  /** config.json in Llama's spelling. */
  config(): JsonObject;
  tensors(locations: ReadonlyMap<string, TensorLocation>, config: ModelConfig): Map<string, TensorLocation>;
  readonly record: RecordModel;
}

export async function loadModelExtension({ extension, raw, source }: ModelOrigin): Promise<LoadedModel> {
  const module = await importExtension(extension);
  const fields = new Fields(raw, source);
  const guard = <T>(what: string, call: () => T): T => {
    try {
      return call();
    } catch (error) {
      throw asModelError(extension, what, error);
    }
  };
  return {
    config: () => guard('config', () => readConfig(extension, module, fields)),
    tensors: (locations, config) => guard('tensors', () => mapTensors(extension, module, locations, config)),
    record: (config, dtype) =>
      guard('build', () => {
        const program = recordWith((g) => module.build(g, config, fields), config, dtype);
        if (program.outputs.length > 0) return program;
        throw invalid(extension, 'its build makes no tokens; end it with return g.sample(logits)');
      }),
  };
}

function readConfig(extension: FoundModel, module: ModelExtension, fields: Fields): JsonObject {
  const config = module.config === undefined ? fields.raw : module.config(fields);
  if (isJsonObject(config)) return config;
  throw invalid(extension, 'its config returns no object; expected config.json as Llama would spell it');
}

function mapTensors(
  extension: FoundModel,
  module: ModelExtension,
  locations: ReadonlyMap<string, TensorLocation>,
  config: ModelConfig,
): Map<string, TensorLocation> {
  const mapped = new Map<string, TensorLocation>();
  for (const location of locations.values()) {
    for (const part of module.tensors?.(location, config) ?? [location]) {
      if (mapped.has(part.name)) throw invalid(extension, `its tensors gives two the name ${part.name}`);
      mapped.set(part.name, part);
    }
  }
  return mapped;
}

/** Errors with a code of ours are about the checkpoint; those that would be our bugs, and all others, about the package. */
function asModelError(extension: FoundModel, what: string, error: unknown): TenonError {
  const known = asTenonError(error);
  if (known.code !== 'internal.invariant') return known;
  return invalid(extension, `its ${what} failed: ${known.message.replace(bugNote, '')}`, error);
}
