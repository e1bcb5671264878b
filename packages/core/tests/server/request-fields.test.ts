/** Every field of vLLM's and OpenAI's requests is implemented, ignored as vLLM ignores it, or refused by name. */
import { describe, expect, it } from 'vitest';

import { createApp } from '../../src/server/app.js';
import { type Api, requestFields } from '../../src/server/request-fields.js';
import { ChatCompletionRequest } from '../../src/server/schemas/chat-completions.js';
import { CompletionRequest } from '../../src/server/schemas/completions.js';
import { ScriptedEngine } from './scripted-engine.js';

const shared =
  'max_tokens temperature top_p top_k min_p presence_penalty frequency_penalty repetition_penalty n seed stop stop_token_ids ' +
  'include_stop_str_in_output ignore_eos min_tokens logit_bias allowed_token_ids bad_words logprobs prompt_logprobs ' +
  'logprob_token_ids use_beam_search length_penalty skip_special_tokens spaces_between_special_tokens add_special_tokens ' +
  'truncate_prompt_tokens truncation_side response_format structured_outputs priority request_id session_id cache_salt ' +
  'return_token_ids return_tokens_as_token_ids repetition_detection thinking_token_budget stream stream_options stream_interval ' +
  'vllm_xargs kv_transfer_params ec_transfer_params routed_experts_prompt_start model user best_of guided_json guided_regex ' +
  'guided_choice guided_grammar guided_decoding_backend guided_whitespace_pattern';
const completionsOnly = 'prompt echo prompt_embeds suffix';
const chatOnly =
  'messages max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls reasoning_effort include_reasoning ' +
  'add_generation_prompt continue_final_message echo documents chat_template chat_template_kwargs media_io_kwargs ' +
  'mm_processor_kwargs return_prompt_text audio modalities functions function_call prediction web_search_options store metadata ' +
  'service_tier verbosity';

const fieldsOf: Record<Api, string[]> = {
  completions: `${shared} ${completionsOnly}`.split(' '),
  chat: `${shared} ${chatOnly}`.split(' '),
};
const routes = {
  completions: { url: '/v1/completions', payload: { prompt: 'x', max_tokens: 1 }, schema: CompletionRequest },
  chat: {
    url: '/v1/chat/completions',
    payload: { messages: [{ role: 'user', content: 'x' }], max_tokens: 1 },
    schema: ChatCompletionRequest,
  },
} as const;

/** What asks for something, where another type would be taken as neutral. */
const telling: Record<string, unknown> = {
  use_beam_search: true,
  include_reasoning: false,
  tool_choice: 'auto',
};
const neutral: Record<string, unknown> = {
  response_format: { type: 'text' },
  best_of: 1,
  use_beam_search: false,
  length_penalty: 1,
  suffix: '',
  tool_choice: 'none',
  function_call: 'none',
  include_reasoning: true,
  modalities: ['text'],
  thinking_token_budget: -1,
  vllm_xargs: {},
  verbosity: 'medium',
};

describe.each(['completions', 'chat'] as const)('%s', (api) => {
  const { url, payload, schema } = routes[api];

  it.each(fieldsOf[api])('%s has a row, and is handled as the row says', async (name) => {
    const field = requestFields[name];
    expect(field?.apis).toContain(api);
    if (field?.status === 'implemented') expect(Object.keys(schema.properties)).toContain(name);
    if (field?.status !== 'refused') return;
    const app = await createApp({ engine: new ScriptedEngine(), options: { disableDocs: true } });
    const response = await app.inject({
      method: 'POST',
      url,
      payload: { ...payload, [name]: telling[name] ?? ['x'] },
    });
    expect(response.statusCode).toBe(400);
    expect(response.json()).toMatchObject({
      error: {
        param: name,
        code: 400,
        type: 'BadRequestError',
        tenon_code: 'request.unsupported-parameter',
        message: expect.stringContaining(`'${name}' is not supported`) as string,
      },
    });
  });

  it('has a row for every property of the schema', () => {
    for (const name of Object.keys(schema.properties))
      expect(requestFields[name]?.status, name).not.toBe('refused');
    expect(Object.keys(schema.properties).filter((name) => requestFields[name] === undefined)).toEqual([]);
  });

  it('takes values that ask for nothing, and fields that nobody knows', async () => {
    const app = await createApp({ engine: new ScriptedEngine(), options: { disableDocs: true } });
    const response = await app.inject({
      method: 'POST',
      url,
      payload: { ...payload, ...neutral, unheard_of: [1] },
    });
    expect(response.statusCode, response.body).toBe(200);
  });
});
