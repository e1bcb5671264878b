/** A model architecture from a package: `tenon.models: [{ "architecture", "entry" }]`. */
import type { TensorLocation } from '../backend/index.js';
import { TenonError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import type { GraphBuilder, Value } from '../program/graph-builder.js';
import type { Fields, JsonObject } from '../weights/fields.js';

/**
 * The default export of a model's module. It must be a pure function of its arguments: it is loaded in two threads, the one
 * that opens the checkpoint and the one that runs the engine.
 */
export interface ModelExtension {
  /**
   * config.json in the spelling of Llama's, where it is spelled otherwise. What `build` handles by itself, and core would
   * refuse because it does not know it, is left out.
   */
  readonly config?: (fields: Fields) => JsonObject;
  /**
   * What a tensor of the checkpoint becomes: itself, the same under another name, or several cut from its rows (`cutRows`).
   * Absent: all tensors stay as they are.
   */
  readonly tensors?: (tensor: TensorLocation, config: ModelConfig) => readonly TensorLocation[];
  /** Records the ops; returns the sampled tokens, i32 [L]. `fields` reads config.json as it is in the checkpoint. */
  readonly build: (g: GraphBuilder, config: ModelConfig, fields: Fields) => Value;
}

/**
 * The rows of a tensor as tensors of their own, from the first row on; no byte is copied.
 * @throws `config.weights-invalid` where the parts have not exactly its rows.
 */
export function cutRows(
  tensor: TensorLocation,
  parts: readonly { readonly name: string; readonly rows: number }[],
): TensorLocation[] {
  const [numRows = 0, ...rest] = tensor.shape;
  const wanted = parts.reduce((sum, { rows }) => sum + rows, 0);
  if (wanted !== numRows) {
    throw new TenonError(
      'config.weights-invalid',
      `${tensor.file}: ${tensor.name} [${tensor.shape.join(', ')}] has ${numRows} rows; expected ${wanted}: ${parts.map(({ name, rows }) => `${rows} of ${name}`).join(', ')}`,
    );
  }
  const rowBytes = tensor.sizeBytes / numRows;
  let { offset } = tensor;
  return parts.map(({ name, rows }) => {
    const part = { ...tensor, name, offset, sizeBytes: rows * rowBytes, shape: [rows, ...rest] };
    offset += part.sizeBytes;
    return part;
  });
}
