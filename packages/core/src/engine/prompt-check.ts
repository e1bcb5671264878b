import { TenonError } from '../errors.js';
import type { EngineInfo } from './types.js';

/** Refuses prompts that are empty, too long or hold ids outside the vocabulary. */
export function checkPromptTokens(tokenIds: readonly number[], { maxModelLen, vocabSize }: EngineInfo): void {
  const details = { param: 'prompt' };
  if (tokenIds.length === 0)
    throw new TenonError('request.prompt-empty', 'the prompt has no tokens', details);
  if (tokenIds.length >= maxModelLen) {
    const message = `the prompt has ${tokenIds.length} tokens, but the model's context is ${maxModelLen} (max-model-len) and must leave room for at least one more; shorten the prompt`;
    throw new TenonError('request.prompt-too-long', message, details);
  }
  const bad = tokenIds.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (bad === -1) return;
  const message = `token ${bad} of the prompt is ${tokenIds[bad]}; expected an id from 0 to ${vocabSize - 1}`;
  throw new TenonError('request.token-out-of-vocabulary', message, details);
}
