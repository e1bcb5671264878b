/**
 * Every request field that OpenAI's or vLLM's API has: what becomes of it here. A field we lack is refused by name unless its
 * value asks for nothing; fields in no row are ignored, as vLLM ignores them.
 */
import { TenonError } from '../errors.js';

export type Api = 'completions' | 'chat';

export type RequestField =
  | { readonly status: 'implemented'; readonly apis: readonly Api[] }
  /** Has no effect on the answer, in vLLM as here. */
  | { readonly status: 'ignored'; readonly apis: readonly Api[] }
  | {
      readonly status: 'refused';
      readonly apis: readonly Api[];
      readonly reason: string;
      /** Whether this value asks for nothing. */
      readonly neutral: (value: unknown) => boolean;
    };

const both: readonly Api[] = ['completions', 'chat'];
const completions: readonly Api[] = ['completions'];
const chat: readonly Api[] = ['chat'];

const implemented = (apis: readonly Api[]): RequestField => ({ status: 'implemented', apis });
const ignored = (apis: readonly Api[]): RequestField => ({ status: 'ignored', apis });
const refused = (
  apis: readonly Api[],
  reason: string,
  neutral: (value: unknown) => boolean = () => false,
): RequestField => ({ status: 'refused', apis, reason, neutral });

const is =
  (...values: readonly unknown[]) =>
  (value: unknown): boolean =>
    values.includes(value);
const isEmptyObject = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0;
const isTextFormat = (value: unknown): boolean => (value as { type?: unknown } | null)?.type === 'text';
const isTextOnly = (value: unknown): boolean =>
  Array.isArray(value) && value.every((entry) => entry === 'text');

const structured = 'structured output is not supported yet; ask for JSON in the prompt';
const tools = 'tool calling is not supported yet';
const beams = 'beam search is not supported';
const multimodal = 'only text is supported';
const reasoning = 'reasoning parsers are not supported yet';
const transfer = 'KV-cache transfer is not supported';

export const requestFields: Readonly<Record<string, RequestField>> = {
  model: implemented(both),
  prompt: implemented(completions),
  messages: implemented(chat),
  max_tokens: implemented(both),
  max_completion_tokens: implemented(chat),
  temperature: implemented(both),
  top_p: implemented(both),
  top_k: implemented(both),
  min_p: implemented(both),
  presence_penalty: implemented(both),
  frequency_penalty: implemented(both),
  repetition_penalty: implemented(both),
  n: implemented(both),
  seed: implemented(both),
  stop: implemented(both),
  stop_token_ids: implemented(both),
  include_stop_str_in_output: implemented(both),
  ignore_eos: implemented(both),
  min_tokens: implemented(both),
  logit_bias: implemented(both),
  allowed_token_ids: implemented(both),
  bad_words: implemented(both),
  logprobs: implemented(both),
  top_logprobs: implemented(chat),
  prompt_logprobs: implemented(both),
  skip_special_tokens: implemented(both),
  add_special_tokens: implemented(both),
  truncate_prompt_tokens: implemented(both),
  truncation_side: implemented(both),
  priority: implemented(both),
  request_id: implemented(both),
  cache_salt: implemented(both),
  return_token_ids: implemented(both),
  return_tokens_as_token_ids: implemented(both),
  stream: implemented(both),
  stream_options: implemented(both),
  stream_interval: implemented(both),
  echo: implemented(both),
  add_generation_prompt: implemented(chat),
  continue_final_message: implemented(chat),
  documents: implemented(chat),
  chat_template: implemented(chat),
  chat_template_kwargs: implemented(chat),
  reasoning_effort: implemented(chat),
  return_prompt_text: implemented(chat),

  user: ignored(both),
  session_id: ignored(both),
  safety_identifier: ignored(both),
  prompt_cache_key: ignored(both),

  store: refused(both, 'answers are not stored', is(false)),
  metadata: refused(both, 'answers are not stored, nor metadata with them', isEmptyObject),
  service_tier: refused(both, 'there is one tier; use priority', is('auto', 'default')),
  prompt_cache_retention: refused(
    both,
    'cached prefixes stay until their blocks are needed',
    is('in_memory', 'in-memory'),
  ),
  parallel_tool_calls: refused(chat, tools, is(true)),
  spaces_between_special_tokens: refused(both, 'special tokens are joined as the tokenizer does', is(true)),
  logprob_token_ids: refused(both, 'logprobs of chosen tokens are not supported; use logprobs'),
  use_beam_search: refused(both, beams, is(false)),
  length_penalty: refused(both, beams, is(1)),
  early_stopping: refused(both, beams, is(false)),
  best_of: refused(both, 'best_of is gone from vLLM too; use n', is(1)),
  response_format: refused(both, structured, isTextFormat),
  structured_outputs: refused(both, structured),
  guided_json: refused(both, structured),
  guided_regex: refused(both, structured),
  guided_choice: refused(both, structured),
  guided_grammar: refused(both, structured),
  guided_decoding_backend: refused(both, structured),
  guided_whitespace_pattern: refused(both, structured),
  structural_tag: refused(both, structured),
  repetition_detection: refused(both, 'repetition detection is not supported yet; use repetition_penalty'),
  thinking_token_budget: refused(both, reasoning, is(-1)),
  vllm_xargs: refused(both, 'custom sampling arguments are not supported', isEmptyObject),
  logits_processors: refused(both, 'per-request logits processors are not supported; use logit_bias'),
  kv_transfer_params: refused(both, transfer, isEmptyObject),
  ec_transfer_params: refused(both, transfer, isEmptyObject),
  routed_experts_prompt_start: refused(both, 'routed experts are not reported'),
  suffix: refused(completions, 'filling in the middle is not supported', is('')),
  prompt_embeds: refused(completions, 'prompt embeddings are not supported; send text or token ids'),
  tools: refused(chat, tools),
  tool_choice: refused(chat, tools, is('none')),
  functions: refused(chat, tools),
  function_call: refused(chat, tools, is('none')),
  include_reasoning: refused(chat, reasoning, is(true)),
  media_io_kwargs: refused(chat, multimodal, isEmptyObject),
  mm_processor_kwargs: refused(both, multimodal, isEmptyObject),
  modalities: refused(chat, multimodal, isTextOnly),
  audio: refused(chat, multimodal),
  prediction: refused(chat, 'predicted outputs are not supported'),
  web_search_options: refused(chat, 'web search is not supported'),
  verbosity: refused(chat, 'verbosity is not supported; say it in a message', is('medium')),
};

/** Throws a 400 that names the first field of `body` that we lack. */
export function refuseUnsupportedFields(api: Api, body: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(body)) {
    const field = Object.hasOwn(requestFields, name) ? requestFields[name] : undefined;
    if (field?.status !== 'refused' || !field.apis.includes(api) || value === null || field.neutral(value))
      continue;
    throw new TenonError('request.unsupported-parameter', `'${name}' is not supported: ${field.reason}`, {
      param: name,
    });
  }
}
