/**
 * What becomes of every request field of OpenAI's and vLLM's APIs. Fields of our schemas are implemented; the table here has
 * the others: ignored, or refused by name unless their value asks for nothing. Fields in neither are ignored, as vLLM ignores
 * them. docs/api.md is made from both.
 */
import { isDeepStrictEqual } from 'node:util';

import { TenonError } from '../errors.js';
import { ChatCompletionRequest } from './schemas/chat-completions.js';
import { CompletionRequest } from './schemas/completions.js';
import type { ValueSchema } from './schemas/expected-value.js';

export const apis = ['completions', 'chat'] as const;
export type Api = (typeof apis)[number];

/** A field that no schema has. */
export interface OtherField {
  readonly apis: readonly Api[];
  readonly status: 'ignored' | 'refused';
  /** Why, and what to do instead. */
  readonly reason: string;
  /** Values of a refused field that ask for nothing, and so are taken; null is always one. */
  readonly neutral: readonly unknown[];
}

export const implementedFields: Readonly<Record<Api, Readonly<Record<string, ValueSchema>>>> = {
  completions: CompletionRequest.properties,
  chat: ChatCompletionRequest.properties,
};

const completions: readonly Api[] = ['completions'];
const chat: readonly Api[] = ['chat'];

const ignored = (reason: string): OtherField => ({ apis, status: 'ignored', reason, neutral: [] });
const refused = (
  of: readonly Api[],
  reason: string,
  neutral: readonly unknown[] = [],
): OtherField => ({ apis: of, status: 'refused', reason, neutral }); // prettier-ignore

const structured = 'structured output is not supported yet; ask for JSON in the prompt';
const tools = 'OpenAI has replaced it; use tools and tool_choice';
const beams = 'beam search is not supported yet; use n with a temperature';
const multimodal = 'only text is supported';
const reasoning = 'reasoning parsers are not supported yet; the reasoning is part of the content';
const transfer = 'KV-cache transfer is not supported';

export const otherFields: Readonly<Record<string, OtherField>> = {
  user: ignored('for the client’s own records'),
  session_id: ignored('there is one engine, so a session is always at the right one'),
  safety_identifier: ignored('for the client’s own records'),
  prompt_cache_key: ignored('equal prompt starts share the cache by themselves; cache_salt keeps them apart'),
  spaces_between_special_tokens: ignored(
    'the tokenizer says how tokens are joined, as for the fast tokenizers of Hugging Face',
  ),

  response_format: refused(apis, structured, [{ type: 'text' }]),
  structured_outputs: refused(apis, structured),
  structural_tag: refused(apis, structured),
  guided_json: refused(apis, structured),
  guided_regex: refused(apis, structured),
  guided_choice: refused(apis, structured),
  guided_grammar: refused(apis, structured),
  guided_decoding_backend: refused(apis, structured),
  guided_whitespace_pattern: refused(apis, structured),
  functions: refused(chat, tools),
  function_call: refused(chat, tools, ['none']),
  use_beam_search: refused(apis, beams, [false]),
  length_penalty: refused(apis, beams, [1]),
  early_stopping: refused(apis, beams, [false]),
  best_of: refused(apis, 'best_of is gone from vLLM too; use n', [1]),
  logprob_token_ids: refused(apis, 'logprobs of chosen tokens are not supported; use logprobs'),
  logits_processors: refused(apis, 'no code comes with a request; use --logits-processors and vllm_xargs'),
  extra_args: refused(apis, 'over HTTP its name is vllm_xargs', [{}]),
  thinking_token_budget: refused(apis, reasoning, [-1]),
  include_reasoning: refused(chat, reasoning, [true]),
  kv_transfer_params: refused(apis, transfer, [{}]),
  ec_transfer_params: refused(apis, transfer, [{}]),
  routed_experts_prompt_start: refused(apis, 'routed experts are not reported; leave it out'),
  suffix: refused(completions, 'filling in the middle is not supported; use the model’s own markers in the prompt', ['']), // prettier-ignore
  prompt_embeds: refused(completions, 'prompt embeddings are not supported; send text or token ids'),
  mm_processor_kwargs: refused(apis, multimodal, [{}]),
  media_io_kwargs: refused(chat, multimodal, [{}]),
  modalities: refused(chat, multimodal, [['text']]),
  audio: refused(chat, multimodal),
  prediction: refused(chat, 'predicted outputs are not supported; leave it out'),
  web_search_options: refused(chat, 'web search is not supported; leave it out'),
  verbosity: refused(chat, 'verbosity is not supported; say it in a message', ['medium']),
  store: refused(apis, 'answers are not stored', [false]),
  metadata: refused(apis, 'answers are not stored, nor metadata with them', [{}]),
  service_tier: refused(apis, 'there is one tier; use priority', ['auto', 'default']),
  prompt_cache_retention: refused(apis, 'cached prefixes stay until their blocks are needed', [
    'in_memory',
    'in-memory',
  ]),
};

/** Throws a 400 that names the first field of `body` that we lack. */
export function refuseUnsupportedFields(api: Api, body: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(body)) {
    const field = Object.hasOwn(otherFields, name) ? otherFields[name] : undefined;
    if (field?.status !== 'refused' || !field.apis.includes(api) || value === null) continue;
    if (field.neutral.some((neutral) => isDeepStrictEqual(neutral, value))) continue;
    throw new TenonError('request.unsupported-parameter', `'${name}' is not supported: ${field.reason}`, {
      param: name,
    });
  }
}
