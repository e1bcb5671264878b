/** Whether a checkpoint has the tensors that a plan needs, asked before any byte of them is read. */
import type { PlanWeight, TensorLocation } from '../backend/index.js';
import { TenonError } from '../errors.js';
import type { Checkpoint } from './checkpoint.js';

const maxNamed = 8;

/**
 * Every part of every weight is in the checkpoint, and the parts of a weight, concatenated, have its shape.
 * @throws `config.weights-missing`, `config.weights-invalid` or `unsupported.dtype`, naming all tensors concerned.
 */
export function requireTensors(
  checkpoint: Pick<Checkpoint, 'path' | 'locations' | 'foreignDtypes'>,
  weights: readonly PlanWeight[],
): void {
  const parts = weights.flatMap((weight) => weight.parts);
  const foreign = parts.filter((name) => checkpoint.foreignDtypes.has(name));
  if (foreign.length > 0) {
    const named = foreign.map((name) => `${name} (${checkpoint.foreignDtypes.get(name)})`);
    throw new TenonError(
      'unsupported.dtype',
      `${checkpoint.path}: ${listed(named)} cannot be loaded; supported: F32, F16, BF16`,
    );
  }
  const missing = parts.filter((name) => !checkpoint.locations.has(name));
  if (missing.length > 0) {
    throw new TenonError(
      'config.weights-missing',
      `${checkpoint.path} lacks ${missing.length} of ${parts.length} tensors that its configuration calls for: ${listed(missing)}`,
    );
  }
  const wrong = weights.flatMap((weight) => {
    const found = weight.parts.map((name) => checkpoint.locations.get(name)!);
    const fault = weight.parts.length > 0 ? shapeFault(weight, found) : undefined;
    return fault === undefined ? [] : [fault];
  });
  if (wrong.length > 0) {
    throw new TenonError(
      'config.weights-invalid',
      `${checkpoint.path}: ${wrong.length} weights have shapes that contradict the configuration: ${listed(wrong)}`,
    );
  }
}

/** Parts are concatenated along dimension 0. */
function shapeFault(weight: PlanWeight, parts: readonly TensorLocation[]): string | undefined {
  const rows = parts.reduce((sum, part) => sum + (part.shape[0] ?? 0), 0);
  const rowShape = weight.shape.slice(1).join();
  const fits = rows === weight.shape[0] && parts.every((part) => part.shape.slice(1).join() === rowShape);
  if (fits) return undefined;
  const found = parts.map((part) => `${part.name} [${part.shape.join(', ')}]`).join(' + ');
  return `${found}, expected [${weight.shape.join(', ')}]${parts.length > 1 ? ' together' : ''}`;
}

function listed(names: readonly string[]): string {
  const rest = names.length - maxNamed;
  return names.slice(0, maxNamed).join('; ') + (rest > 0 ? `; and ${rest} more` : '');
}
