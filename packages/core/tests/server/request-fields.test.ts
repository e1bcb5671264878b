/** Every row of docs/api.md: implemented fields show their effect on a real model, others are ignored or refused by name. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Api, apis, implementedFields, otherFields } from '../../src/server/request-fields.js';
import type { ValueSchema } from '../../src/server/schemas/expected-value.js';
import { proofs } from './field-proofs.js';
import { type LiveApi, type LiveModel, startLiveModel } from './live-model.js';

/** What OpenAI and vLLM have, by their documentation: each needs a row. */
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
  'service_tier verbosity safety_identifier prompt_cache_key prompt_cache_retention';
const fieldsOf: Record<Api, string[]> = {
  completions: `${shared} ${completionsOnly}`.split(' '),
  chat: `${shared} ${chatOnly}`.split(' '),
};

const cheap = { max_tokens: 1, truncate_prompt_tokens: 1 };

let live: LiveModel;
beforeAll(async () => {
  live = await startLiveModel();
});
afterAll(async () => {
  await live[Symbol.asyncDispose]();
});

const othersOf = (api: Api, status: 'ignored' | 'refused') =>
  Object.entries(otherFields).filter(([, field]) => field.status === status && field.apis.includes(api));

describe.each(apis)('%s', (api) => {
  const implemented = Object.entries(implementedFields[api]);
  const proofOf = (name: string) => proofs[`${api}.${name}`] ?? proofs[name];
  const liveApi = (): LiveApi => live[api];

  it('has a row for every field of the reference, and one row for each', () => {
    const rows = [...implemented, ...othersOf(api, 'ignored'), ...othersOf(api, 'refused')].map(
      ([name]) => name,
    );
    expect(fieldsOf[api].filter((name) => !rows.includes(name))).toEqual([]);
    expect(rows).toHaveLength(new Set(rows).size);
  });

  it.each(implemented)('%s does what it says', async (name) => {
    const proof = proofOf(name);
    expect(proof, `field-proofs.ts has no proof of ${name}`).toBeDefined();
    await proof?.(liveApi());
  });

  it.each(implemented)('%s of a wrong type or out of range is refused by name', async (name, schema) => {
    for (const value of wrongValues(schema)) {
      const error = await liveApi().error({ [name]: value });
      expect(error).toMatchObject({ code: 400, param: expect.stringMatching(`^${name}\\b`) as string });
      expect(error.message).toContain(name);
    }
  });

  it.each(othersOf(api, 'ignored'))('%s changes nothing', async (name) => {
    const short = { max_tokens: 2 };
    const plain = await liveApi().ask(short);
    for (const value of ['x', { a: [null] }]) {
      const answer = await liveApi().ask({ ...short, [name]: value });
      expect(answer).toMatchObject({ choices: plain.choices, model: plain.model });
    }
  });

  it.each(othersOf(api, 'refused'))(
    '%s is refused by name, and taken where it asks for nothing',
    async (name, field) => {
      const error = await liveApi().error({ [name]: ['x'] });
      expect(error).toEqual({
        message: `'${name}' is not supported: ${field.reason}`,
        type: 'BadRequestError',
        param: name,
        code: 400,
        tenon_code: 'request.unsupported-parameter',
      });
      for (const value of [null, ...field.neutral]) await liveApi().ask({ [name]: value, ...cheap });
    },
  );

  it('ignores fields that nobody knows', async () => {
    expect(await liveApi().text({ unheard_of: [1], constructor: 1 })).toBe(await liveApi().text());
  });
});

it('proves no field that is not there', () => {
  const names = Object.keys(proofs).filter((key) =>
    apis.every((api) => {
      const name = key.startsWith(`${api}.`) ? key.slice(api.length + 1) : key;
      return !(name in implementedFields[api]);
    }),
  );
  expect(names).toEqual([]);
});

/** Another type, and what lies beyond each limit. */
function wrongValues(schema: ValueSchema): unknown[] {
  const { type, minimum, exclusiveMinimum, maximum, minItems, minLength, anyOf } = schema;
  const otherType = type === 'boolean' || anyOf !== undefined ? 3.5 : true;
  return [
    otherType,
    ...(minimum === undefined ? [] : [minimum - 1]),
    ...(exclusiveMinimum === undefined ? [] : [exclusiveMinimum]),
    ...(maximum === undefined ? [] : [maximum + 1]),
    ...(type === 'integer' ? [10.5] : []),
    ...(minItems === undefined ? [] : [[]]),
    ...(minLength === undefined ? [] : ['']),
  ];
}
