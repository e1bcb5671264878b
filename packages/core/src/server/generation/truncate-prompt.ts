/** `truncate_prompt_tokens`: keeps the end of a prompt, or its start. */
import { TenonError } from '../../errors.js';

export interface Truncation {
  readonly truncate_prompt_tokens?: number;
  readonly truncation_side?: 'left' | 'right';
}

/** `maxTokens`: what is to be generated, for -1 (keep as many as leave room for it). */
export function truncatePrompt(
  tokenIds: readonly number[],
  truncation: Truncation,
  maxModelLen: number,
  maxTokens: number | undefined,
): readonly number[] {
  const asked = truncation.truncate_prompt_tokens;
  if (asked === undefined) return tokenIds;
  if (asked > maxModelLen || asked === 0) {
    throw new TenonError(
      'request.invalid-value',
      `'truncate_prompt_tokens' must be -1 or from 1 to the model length of ${maxModelLen}, not ${asked}`,
      { param: 'truncate_prompt_tokens' },
    );
  }
  const kept = asked === -1 ? Math.max(1, maxModelLen - (maxTokens ?? 1)) : asked;
  if (tokenIds.length <= kept) return tokenIds;
  return truncation.truncation_side === 'right' ? tokenIds.slice(0, kept) : tokenIds.slice(-kept);
}
