import { describe, expect, it } from 'vitest';
import { TenonError } from '../errors.js';
import { modelFunction, supportedArchitectures } from './registry.js';

function errorOf(action: () => unknown): TenonError {
  try {
    action();
  } catch (error) {
    return error as TenonError;
  }
  throw new Error('nothing was thrown');
}

describe('the model registry', () => {
  it.each([
    ['Gemma2ForCausalLM', 'is not supported yet'],
    ['LamaForCausalLM', 'is unknown'],
    ['toString', 'is unknown'],
  ])('names what there is when asked for %s', (architecture, phrase) => {
    const error = errorOf(() => modelFunction(architecture));
    expect(error.code).toBe('unsupported.architecture');
    expect(error.message).toContain(`${architecture} ${phrase}`);
    for (const supported of supportedArchitectures) expect(error.message).toContain(supported);
  });
});
