/** The `prompt` of a completion request: one or many, as text or as token ids. */
import type { Prompt } from '../../engine/types.js';
import { TenonError } from '../../errors.js';
import { maxSequences } from '../../sampling/resolve-sampling-params.js';
import type { CompletionRequest } from '../schemas/completions.js';
import type { ServerContext } from '../server-context.js';
import { truncatePrompt } from './truncate-prompt.js';

export async function completionPrompts(body: CompletionRequest, context: ServerContext): Promise<Prompt[]> {
  const prompts = listPrompts(body.prompt);
  const { maxNumPrompts } = context.options;
  if (prompts.length > maxNumPrompts) {
    throw new TenonError(
      'request.invalid-value',
      `'prompt' has ${prompts.length} prompts; at most ${maxNumPrompts} are allowed`,
      { param: 'prompt' },
    );
  }
  checkNumChoices(prompts.length, body.n ?? 1);
  prompts.forEach((prompt, i) => checkPrompt(prompt, i, context));
  if (body.truncate_prompt_tokens === undefined) return prompts;
  return Promise.all(prompts.map((prompt) => truncated(prompt, body, context)));
}

/** What one prompt may ask for, all together may ask for: choices cost memory from the start. */
function checkNumChoices(numPrompts: number, n: number): void {
  if (numPrompts * n <= maxSequences) return;
  const message = `'n' is ${n} for each of ${numPrompts} prompts; at most ${maxSequences} choices are allowed in all`;
  throw new TenonError('request.invalid-value', message, { param: 'n' });
}

function listPrompts(prompt: CompletionRequest['prompt']): Prompt[] {
  if (typeof prompt === 'string') return [{ text: prompt }];
  if (isTokenIds(prompt)) return [{ tokenIds: prompt }];
  return prompt.map((entry) => (typeof entry === 'string' ? { text: entry } : { tokenIds: entry }));
}

function isTokenIds(prompt: readonly unknown[]): prompt is number[] {
  return prompt.length === 0 || typeof prompt[0] === 'number';
}

function checkPrompt(prompt: Prompt, index: number, { engine }: ServerContext): void {
  if ('text' in prompt) {
    if (engine.tokenizer !== undefined) return;
    throw new TenonError(
      'request.no-tokenizer',
      "text needs a tokenizer, and the server runs with --skip-tokenizer-init: send 'prompt' as token ids",
      { param: 'prompt' },
    );
  }
  if (prompt.tokenIds.length === 0) {
    throw new TenonError('request.prompt-empty', `prompt ${index} has no tokens; send at least one`, {
      param: 'prompt',
    });
  }
}

async function truncated(
  prompt: Prompt,
  body: CompletionRequest,
  { engine }: ServerContext,
): Promise<Prompt> {
  const tokenIds =
    'tokenIds' in prompt
      ? prompt.tokenIds
      : ((await engine.tokenizer?.encodeAsync(prompt.text, {
          addSpecialTokens: body.add_special_tokens ?? true,
        })) ?? []);
  return { tokenIds: truncatePrompt(tokenIds, body, engine.info.maxModelLen, body.max_tokens ?? undefined) };
}

/** The prompt's text, for `echo`; empty without a tokenizer. */
export function promptText(prompt: Prompt, { engine }: ServerContext): string {
  if ('text' in prompt) return prompt.text;
  return engine.tokenizer?.decode(prompt.tokenIds, { skipSpecialTokens: false }) ?? '';
}
