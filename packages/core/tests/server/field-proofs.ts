/**
 * What shows, on a real model's answers, that a request field does what docs/api.md says: one proof per implemented field.
 * A name is a field of both APIs, or of the one that has it; `chat.logprobs` is chat's where the two differ.
 */
import { expect } from 'vitest';

import {
  bosTokenId, eosTokenId, maxModelLen, maxNumSeqs, messages, prompt, promptTokensOf, specialTokenId, textOf, vocabSize,
  type Choice, type LiveApi,
} from './live-model.js'; // prettier-ignore

type Proof = (api: LiveApi) => Promise<void>;

/** Sampling that hardly ever takes the likeliest token. */
const wild = { temperature: 2, seed: 7 };
const many = { temperature: 1.5, n: maxNumSeqs };
const tools = [{ type: 'function', function: { name: 'look_up', parameters: { type: 'object' } } }];

export const proofs: Readonly<Record<string, Proof>> = {
  async model(api) {
    expect((await api.ask()).model).toBe('stories');
    expect((await api.ask({ model: 'also-stories' })).model).toBe('also-stories');
    expect(await api.error({ model: 'others' })).toMatchObject({ code: 404, param: 'model' });
  },

  async max_tokens(api) {
    for (const maxTokens of [1, 3]) {
      const answer = await api.ask({ max_tokens: maxTokens });
      expect(answer.choices[0].token_ids).toHaveLength(maxTokens);
      expect(answer.choices[0].finish_reason).toBe('length');
      expect(answer.usage.completion_tokens).toBe(maxTokens);
    }
  },

  async temperature(api) {
    const greedy = await api.tokens();
    expect(await api.tokens({ temperature: 0, seed: 7 })).toEqual(greedy);
    expect(await api.tokens({ temperature: 2, seed: 7 })).not.toEqual(greedy);
  },

  async top_p(api) {
    expect(await api.tokens(wild)).not.toEqual(await api.tokens());
    expect(await api.tokens({ ...wild, top_p: 1e-6 })).toEqual(await api.tokens());
  },

  async top_k(api) {
    expect(await api.tokens({ ...wild, top_k: 1 })).toEqual(await api.tokens());
    expect(await api.tokens({ ...wild, top_k: -1 })).toEqual(await api.tokens(wild));
  },

  async min_p(api) {
    expect(await api.tokens({ ...wild, min_p: 1 })).toEqual(await api.tokens());
  },

  async seed(api) {
    const first = await api.tokens({ temperature: 1.5, seed: 1 });
    expect(await api.tokens({ temperature: 1.5, seed: 1 })).toEqual(first);
    expect(await api.tokens({ temperature: 1.5, seed: 2 })).not.toEqual(first);
  },

  async presence_penalty(api) {
    await expectPenalized(api, { presence_penalty: 2 }, (count) => (count > 0 ? 2 : 0));
  },

  async frequency_penalty(api) {
    await expectPenalized(api, { frequency_penalty: 1.5 }, (count) => 1.5 * count);
  },

  async repetition_penalty(api) {
    const plain = await api.ask({ max_tokens: 12 });
    const penalized = await api.ask({ max_tokens: 12, repetition_penalty: 1000 });
    const seen = (answer: typeof plain): number[] => [
      ...promptTokensOf(answer),
      ...answer.choices[0].token_ids,
    ];
    const numDistinctInPrompt = new Set(promptTokensOf(plain)).size;
    expect(new Set(seen(plain)).size).toBeLessThan(numDistinctInPrompt + 12);
    expect(new Set(seen(penalized)).size).toBe(numDistinctInPrompt + 12);
  },

  async n(api) {
    const { choices, usage } = await api.ask({ ...many, n: 3, seed: 5, max_tokens: 4 });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(new Set(choices.map(textOf)).size).toBe(3);
    expect(usage.completion_tokens).toBe(12);
    expect(usage.prompt_tokens).toBe((await api.ask()).usage.prompt_tokens);
  },

  async stop(api) {
    const text = await api.text();
    const stop = text.trim().split(' ')[1] ?? '';
    for (const given of [stop, ['never there', stop]]) {
      const [choice] = (await api.ask({ stop: given })).choices;
      expect(textOf(choice)).toBe(text.slice(0, text.indexOf(stop)));
      expect(choice).toMatchObject({ finish_reason: 'stop', stop_reason: stop });
    }
  },

  async stop_token_ids(api) {
    const tokens = await api.tokens();
    const [choice] = (await api.ask({ stop_token_ids: [tokens[2]] })).choices;
    expect(choice).toMatchObject({ finish_reason: 'stop', stop_reason: tokens[2] });
    expect(choice.token_ids).toEqual(tokens.slice(0, 3));
    expect(textOf(choice)).toBe(await api.text({ max_tokens: 2 }));
  },

  async include_stop_str_in_output(api) {
    const text = await api.text();
    const stop = text.trim().split(' ')[1] ?? '';
    expect(await api.text({ stop, include_stop_str_in_output: true })).toBe(
      text.slice(0, text.indexOf(stop) + stop.length),
    );
  },

  async ignore_eos(api) {
    const ending = { logit_bias: { [eosTokenId]: 100 } };
    const [ended] = (await api.ask(ending)).choices;
    expect(ended).toMatchObject({ finish_reason: 'stop', stop_reason: null, token_ids: [eosTokenId] });
    const [ignored] = (await api.ask({ ...ending, ignore_eos: true })).choices;
    expect(ignored.finish_reason).toBe('length');
    expect(ignored.token_ids).toEqual(Array.from({ length: 5 }, () => eosTokenId));
  },

  async min_tokens(api) {
    const [choice] = (await api.ask({ logit_bias: { [eosTokenId]: 100 }, min_tokens: 3 })).choices;
    expect(choice.token_ids).toHaveLength(4);
    expect(choice.token_ids.indexOf(eosTokenId)).toBe(3);
    expect(choice.finish_reason).toBe('stop');
  },

  async logit_bias(api) {
    expect(await api.tokens({ logit_bias: { 77: 100 }, max_tokens: 3 })).toEqual([77, 77, 77]);
    const [likeliest = 0] = await api.tokens();
    expect((await api.tokens({ logit_bias: { [likeliest]: -100 } }))[0]).not.toBe(likeliest);
  },

  async allowed_token_ids(api) {
    const allowed = [50, 60, 70];
    const tokens = await api.tokens({ ...wild, allowed_token_ids: allowed });
    expect(tokens.filter((token) => !allowed.includes(token))).toEqual([]);
  },

  async bad_words(api) {
    const text = await api.text();
    const word = text.trim().split(' ')[1] ?? '';
    expect(text).toContain(word);
    expect(await api.text({ bad_words: [word] })).not.toContain(word);
  },

  async vllm_xargs(api) {
    const [choice] = (await api.ask({ vllm_xargs: { only_digits: 3 } })).choices;
    expect(textOf(choice)).toMatch(/^[0-9]{1,3}$/);
    expect(choice.token_ids.at(-1)).toBe(eosTokenId);
    const several = await api.ask({ ...many, seed: 3, max_tokens: 4, vllm_xargs: { only_digits: 9 } });
    expect(several.choices.map(textOf).join()).toMatch(/^[0-9]{1,4},[0-9]{1,4}$/);
    const seven = 25;
    const merged = { logit_bias: { [seven]: 100, [eosTokenId]: 100 }, min_tokens: 2 };
    expect(await api.tokens({ ...merged, vllm_xargs: { only_digits: 4 } })).toEqual([
      seven,
      seven,
      eosTokenId,
    ]);
    const none = { allowed_token_ids: [77], vllm_xargs: { only_digits: 4 } };
    expect(await api.error(none)).toMatchObject({ code: 400, tenon_code: 'request.invalid-value' });
    expect(await api.tokens({ vllm_xargs: {} })).toEqual(await api.tokens());
    const wrong = { code: 400, param: 'vllm_xargs', tenon_code: 'request.invalid-value' };
    expect(await api.error({ vllm_xargs: { only_digits: 'x' } })).toMatchObject({
      ...wrong,
      message: `logits processor 'only-digits' refuses the extra arguments: only_digits is "x"; expected a number of digits`,
    });
    expect(await api.error({ vllm_xargs: { digits: 3 } })).toMatchObject({
      ...wrong,
      message:
        "vllm_xargs has 'digits', which no logits processor reads; they read only_digits (only-digits)",
    });
  },

  async repetition_detection(api) {
    const repeating = { logit_bias: { 77: 100 }, max_tokens: 12 };
    const detection = { max_pattern_size: 2, min_count: 4 };
    const [ended] = (await api.ask({ ...repeating, repetition_detection: detection })).choices;
    expect(ended).toMatchObject({ finish_reason: 'repetition', stop_reason: 'repetition_detected' });
    expect(ended.token_ids).toEqual([77, 77, 77, 77]);
    const pairs = { ...detection, min_pattern_size: 2 };
    expect(await api.tokens({ ...repeating, repetition_detection: pairs })).toHaveLength(8);
    const held = { ...repeating, repetition_detection: detection, min_tokens: 5 };
    expect(await api.tokens(held)).toHaveLength(5);
    const wrong = { max_pattern_size: 2, min_pattern_size: 3, min_count: 2 };
    expect(await api.error({ repetition_detection: wrong })).toMatchObject({ param: 'repetition_detection' });
  },

  async 'completions.logprobs'(api) {
    expect((await api.ask()).choices[0].logprobs).toBeNull();
    const [{ token_ids: tokenIds, logprobs }] = (
      await api.ask({ logprobs: -1, return_tokens_as_token_ids: true })
    ).choices;
    const { tokens, token_logprobs, top_logprobs, text_offset } = logprobs as {
      tokens: string[];
      token_logprobs: number[];
      top_logprobs: Record<string, number>[];
      text_offset: number[];
    };
    expect(tokens).toEqual(tokenIds.map((id) => `token_id:${id}`));
    expect(text_offset).toHaveLength(5);
    top_logprobs.forEach((top, i) => expectDistribution(Object.values(top), token_logprobs[i] ?? 0));
    const [few] = (await api.ask({ logprobs: 2, return_tokens_as_token_ids: true })).choices;
    const twoBest = Object.values(top_logprobs[0] ?? {}).toSorted((a, b) => b - a).slice(0, 2); // prettier-ignore
    const fewTop = (few.logprobs as { top_logprobs: Record<string, number>[] }).top_logprobs;
    expect(Object.values(fewTop[0] ?? {})).toEqual(twoBest);
  },

  async 'chat.logprobs'(api) {
    expect((await api.ask()).choices[0].logprobs).toBeNull();
    const [choice] = (await api.ask({ logprobs: true })).choices;
    const content = chatLogprobs(choice);
    expect(content.map(({ token }) => token).join('')).toBe(textOf(choice));
    expect(content.map(({ bytes }) => Buffer.from(bytes).toString()).join('')).toBe(textOf(choice));
    expect(content.map(({ top_logprobs: top }) => top)).toEqual(Array.from({ length: 5 }, () => []));
  },

  async top_logprobs(api) {
    const all = chatLogprobs((await api.ask({ logprobs: true, top_logprobs: -1 })).choices[0]);
    for (const { logprob, top_logprobs: top } of all)
      expectDistribution(top.map((entry) => entry.logprob), logprob); // prettier-ignore
    const three = chatLogprobs((await api.ask({ logprobs: true, top_logprobs: 3 })).choices[0]);
    expect(three.map(({ top_logprobs: top }) => top)).toEqual(
      all.map(({ top_logprobs: top }) => top.slice(0, 3)),
    );
    expect(await api.error({ top_logprobs: 3 })).toMatchObject({ code: 400, param: 'top_logprobs' });
  },

  /** What the model thought when it wrote the tokens is what it thinks when it reads them. */
  async prompt_logprobs(api) {
    const answer = await api.ask({ prompt_logprobs: 0 });
    const promptTokens = promptTokensOf(answer);
    const found = answer.prompt_logprobs ?? answer.choices[0].prompt_logprobs ?? [];
    expect(found).toHaveLength(promptTokens.length);
    expect(found[0]).toBeNull();
    const last = promptTokens.length - 1;
    const written = await api.logprobAfter(promptTokens.slice(0, last), promptTokens[last] ?? 0);
    expect(found[last]?.[String(promptTokens[last])]?.logprob).toBeCloseTo(written, 4);
    expect(await api.error({ prompt_logprobs: 1, stream: true })).toMatchObject({ param: 'prompt_logprobs' });
  },

  async skip_special_tokens(api) {
    const special = { logit_bias: { [specialTokenId]: 100 }, max_tokens: 2 };
    expect(await api.text(special)).toBe('');
    expect(await api.text({ ...special, skip_special_tokens: false })).toBe('<|im_start|><|im_start|>');
  },

  async add_special_tokens(api) {
    const withThem = promptTokensOf(await api.ask({ add_special_tokens: true, max_tokens: 1 }));
    const without = promptTokensOf(await api.ask({ add_special_tokens: false, max_tokens: 1 }));
    expect(withThem).toEqual([bosTokenId, ...without]);
    const byDefault = promptTokensOf(await api.ask({ max_tokens: 1 }));
    expect(byDefault).toEqual(api.api === 'chat' ? without : withThem);
  },

  async truncate_prompt_tokens(api) {
    const whole = promptTokensOf(await api.ask());
    const cut = await api.ask({ truncate_prompt_tokens: 4 });
    expect(promptTokensOf(cut)).toEqual(whole.slice(-4));
    expect(cut.usage.prompt_tokens).toBe(4);
    const long = 'dog '.repeat(maxModelLen);
    const input = api.api === 'chat' ? { messages: [{ role: 'user', content: long }] } : { prompt: long };
    expect(await api.error(input)).toMatchObject({ code: 400, tenon_code: 'request.prompt-too-long' });
    const fitted = await api.ask({ ...input, truncate_prompt_tokens: -1, max_tokens: 2 });
    expect(fitted.usage.prompt_tokens).toBe(maxModelLen - 2);
  },

  async truncation_side(api) {
    const whole = promptTokensOf(await api.ask());
    const cut = await api.ask({ truncate_prompt_tokens: 4, truncation_side: 'right' });
    expect(promptTokensOf(cut)).toEqual(whole.slice(0, 4));
  },

  /** While others fill the batch, the one of lower priority arrives first and is answered last. */
  async priority(api) {
    const order: string[] = [];
    const noted = async (name: string, fields: object): Promise<void> => {
      await api.ask({ ...many, ...fields });
      order.push(name);
    };
    const running = noted('running', { max_tokens: 6 });
    while (api.engine.stats().numRunning < maxNumSeqs) await new Promise(setImmediate);
    const late = noted('late', { priority: 5, max_tokens: 2 });
    while (api.engine.stats().numWaiting < maxNumSeqs) await new Promise(setImmediate);
    await Promise.all([running, late, noted('early', { priority: -1, max_tokens: 2 })]);
    expect(order).toEqual(['running', 'early', 'late']);
  },

  async request_id(api) {
    const prefix = api.api === 'chat' ? 'chatcmpl' : 'cmpl';
    expect((await api.ask({ request_id: 'mine' })).id).toBe(`${prefix}-mine`);
  },

  async cache_salt(api) {
    const cachedTokens = async (salt: string): Promise<number> =>
      (await api.ask({ cache_salt: salt, max_tokens: 1 })).usage.prompt_tokens_details.cached_tokens;
    expect(await cachedTokens(`${api.api} one`)).toBe(0);
    expect(await cachedTokens(`${api.api} one`)).toBeGreaterThan(0);
    expect(await cachedTokens(`${api.api} two`)).toBe(0);
  },

  async return_token_ids(api) {
    const answer = await api.ask({ return_token_ids: true });
    expect(promptTokensOf(answer)).toHaveLength(answer.usage.prompt_tokens);
    expect(answer.choices[0].token_ids).toHaveLength(answer.usage.completion_tokens);
    const without = await api.ask({ return_token_ids: false });
    expect(without.choices[0]).not.toHaveProperty('token_ids');
    expect(promptTokensOf(without)).toEqual([]);
  },

  async return_tokens_as_token_ids(api) {
    const logprobs = api.api === 'chat' ? true : 0;
    const [choice] = (await api.ask({ logprobs, return_tokens_as_token_ids: true })).choices;
    const spelled =
      api.api === 'chat'
        ? chatLogprobs(choice).map(({ token }) => token)
        : (choice.logprobs as { tokens: string[] }).tokens;
    expect(spelled).toEqual(choice.token_ids.map((id) => `token_id:${id}`));
  },

  async stream(api) {
    const chunks = await api.stream();
    expect(streamedText(chunks)).toBe(await api.text());
    expect(chunks.flatMap(({ choices }) => choices[0]?.token_ids ?? [])).toEqual(await api.tokens());
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('length');
  },

  async stream_options(api) {
    const { usage } = await api.ask();
    const counts = { completion_tokens: 5, prompt_tokens: usage.prompt_tokens };
    expect((await api.stream()).map((chunk) => chunk.usage)).not.toContainEqual(expect.anything());
    const atEnd = await api.stream({ stream_options: { include_usage: true } });
    expect(atEnd.at(-1)).toMatchObject({ choices: [], usage: counts });
    expect(atEnd.slice(0, -1).map((chunk) => chunk.usage)).not.toContainEqual(expect.anything());
    const always = { include_usage: true, continuous_usage_stats: true };
    for (const chunk of await api.stream({ stream_options: always }))
      expect(chunk.usage?.prompt_tokens).toBe(usage.prompt_tokens);
    expect(await api.error({ stream_options: always })).toMatchObject({ param: 'stream_options' });
  },

  async stream_interval(api) {
    const chunks = await api.stream({ stream_interval: 3, max_tokens: 8 });
    const sizes = chunks.map(({ choices }) => choices[0]?.token_ids?.length ?? 0).filter((size) => size > 0);
    expect(sizes).toEqual([1, 3, 3, 1]);
    expect(streamedText(chunks)).toBe(await api.text({ max_tokens: 8 }));
    expect(await api.error({ stream_interval: 3 })).toMatchObject({ param: 'stream_interval' });
  },

  async prompt(api) {
    const tokens = await api.tokens();
    const promptTokens = promptTokensOf(await api.ask());
    expect(await api.tokens({ prompt: promptTokens })).toEqual(tokens);
    const other = await api.tokens({ prompt: 'The cat' });
    expect(other).not.toEqual(tokens);
    const { choices } = await api.ask({ prompt: [prompt, 'The cat'] });
    expect(choices.map(({ token_ids: ids }) => ids)).toEqual([tokens, other]);
    expect((await api.ask({ prompt: [promptTokens, [5, 6]] })).choices).toHaveLength(2);
    expect(await api.error({ prompt: null })).toMatchObject({ code: 400, param: 'prompt' });
  },

  async 'completions.echo'(api) {
    expect(await api.text({ echo: true })).toBe(prompt + (await api.text()));
    const [promptOnly] = (await api.ask({ echo: true, max_tokens: 0 })).choices;
    expect(promptOnly).toMatchObject({ text: prompt, token_ids: [] });
  },

  async messages(api) {
    const [message] = messages;
    const parts = [{ role: 'user', content: [{ type: 'text', text: message?.content }] }];
    expect(await api.tokens({ messages: parts })).toEqual(await api.tokens());
    const other = await api.ask({ messages: [{ role: 'user', content: 'A king.' }] });
    expect(promptTokensOf(other)).not.toEqual(promptTokensOf(await api.ask()));
    expect(other.choices[0].token_ids).not.toEqual(await api.tokens());
    expect(await api.error({ messages: null })).toMatchObject({ code: 400, param: 'messages' });
    const image = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }];
    expect(await api.error({ messages: image })).toMatchObject({ param: 'messages.0.content.0.type' });
  },

  async max_completion_tokens(api) {
    expect(await api.tokens({ max_completion_tokens: 2, max_tokens: 5 })).toHaveLength(2);
  },

  async add_generation_prompt(api) {
    const opening = '<|im_start|>assistant\n';
    const withIt = await promptText(api, { add_generation_prompt: true });
    expect(withIt).toMatch(/<\|im_start\|>assistant\n$/);
    expect(await promptText(api, { add_generation_prompt: false })).toBe(withIt.slice(0, -opening.length));
    expect(await promptText(api, {})).toBe(withIt);
  },

  async continue_final_message(api) {
    const begun = [...messages, { role: 'assistant', content: 'Once upon' }];
    expect(await promptText(api, { messages: begun, continue_final_message: true })).toMatch(
      /assistant\nOnce upon$/,
    );
    const both = { add_generation_prompt: true, continue_final_message: true };
    expect(await api.error(both)).toMatchObject({ code: 400, param: 'continue_final_message' });
  },

  async 'chat.echo'(api) {
    const begun = { messages: [...messages, { role: 'assistant', content: 'Once upon' }], continue_final_message: true }; // prettier-ignore
    expect(await api.text({ ...begun, echo: true })).toBe(`Once upon${await api.text(begun)}`);
  },

  async documents(api) {
    expect(await promptText(api, { documents: [{ title: 'The Wind' }] })).toMatch(/^The Wind\n/);
  },

  async tools(api) {
    const [choice] = (await api.ask({ tools })).choices;
    expect(await promptText(api, { tools })).toMatch(/^tools look_up\n/);
    expect(choice.message?.content).toBeNull();
    expect(calledWords(choice).length).toBeGreaterThan(1);
    expect(await api.error({ tools: [{ ...tools[0], type: 'custom' }] })).toMatchObject({
      param: 'tools.0.type',
    });
    const strict = [{ type: 'function', function: { name: 'look_up', strict: true } }];
    expect(await api.error({ tools: strict })).toMatchObject({ param: 'tools.0.function.strict' });
  },

  async tool_choice(api) {
    const [called] = (await api.ask({ tools, tool_choice: 'auto' })).choices;
    const [told] = (await api.ask({ tools, tool_choice: 'none' })).choices;
    expect(told.message).not.toHaveProperty('tool_calls');
    expect(calledWords(called)).toEqual(textOf(told).trim().split(/\s+/));
    const named = { type: 'function', function: { name: 'look_up' } };
    for (const choice of ['required', named]) {
      expect(await api.error({ tools, tool_choice: choice })).toMatchObject({
        code: 400,
        param: 'tool_choice',
        tenon_code: 'request.unsupported-parameter',
      });
    }
    expect(await api.error({ tool_choice: 'auto' })).toMatchObject({ code: 400, param: 'tool_choice' });
    expect(await api.tokens({ tool_choice: 'none' })).toEqual(await api.tokens());
  },

  async parallel_tool_calls(api) {
    const [several] = (await api.ask({ tools, parallel_tool_calls: true })).choices;
    const [single] = (await api.ask({ tools, parallel_tool_calls: false })).choices;
    expect(calledWords(single)).toEqual(calledWords(several).slice(0, 1));
  },

  async chat_template(api) {
    const template = "{{ 'Say: ' + messages[0].content }}";
    expect(await promptText(api, { chat_template: template })).toBe(`Say: ${messages[0]?.content}`);
  },

  async chat_template_kwargs(api) {
    expect(await promptText(api, { chat_template_kwargs: { mood: 'sad' } })).toMatch(/^mood sad\n/);
  },

  async reasoning_effort(api) {
    expect(await promptText(api, { reasoning_effort: 'low' })).toMatch(/^effort low on\n/);
    expect(await promptText(api, { reasoning_effort: 'none' })).toMatch(/^effort none off\n/);
  },

  async return_prompt_text(api) {
    expect(await promptText(api, {})).toContain(messages[0]?.content);
    expect(await api.ask({ max_tokens: 1 })).not.toHaveProperty('prompt_text');
  },
};

/** The arguments of an answer's calls, by the parser of live-model.ts. */
function calledWords({ message }: Choice): string[] {
  return (message?.tool_calls ?? []).map(({ function: called }) => {
    expect(called.name).toBe('look_up');
    return (JSON.parse(called.arguments) as { word: string }).word;
  });
}

/** Each token is the best by the raw log-probabilities less the penalties of those before it. */
async function expectPenalized(
  api: LiveApi,
  fields: object,
  penalty: (count: number) => number,
): Promise<void> {
  const withTop = (count: number): object =>
    api.api === 'chat' ? { logprobs: true, top_logprobs: count } : { logprobs: count };
  const [first] = (await api.ask({ ...withTop(8), max_tokens: 1, return_tokens_as_token_ids: true })).choices;
  const allowed = [...(rawLogprobs(first)[0]?.keys() ?? [])];
  const asked = { allowed_token_ids: allowed, max_tokens: 8, return_tokens_as_token_ids: true };
  const [choice] = (await api.ask({ ...asked, ...withTop(-1), ...fields })).choices;
  const counts = new Map<number, number>();
  rawLogprobs(choice).forEach((logprobs, i) => {
    const scores = allowed.map(
      (token) => (logprobs.get(token) ?? Number.NaN) - penalty(counts.get(token) ?? 0),
    );
    const token = choice.token_ids[i] ?? -1;
    expect(token).toBe(allowed[scores.indexOf(Math.max(...scores))]);
    counts.set(token, (counts.get(token) ?? 0) + 1);
  });
  expect(choice.token_ids).not.toEqual(await api.tokens(asked));
}

/** Token id to log-probability, per token; tokens are spelled as ids. */
function rawLogprobs(choice: Choice): Map<number, number>[] {
  const idOf = (spelled: string): number => Number(spelled.slice('token_id:'.length));
  if (choice.message !== undefined)
    return chatLogprobs(choice).map(
      ({ top_logprobs: top }) => new Map(top.map(({ token, logprob }) => [idOf(token), logprob])),
    );
  const { top_logprobs: tops } = choice.logprobs as { top_logprobs: Record<string, number>[] };
  return tops.map((top) => new Map(Object.entries(top).map(([token, logprob]) => [idOf(token), logprob])));
}

interface TokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

function chatLogprobs({
  logprobs,
}: Choice): readonly (TokenLogprob & { readonly top_logprobs: readonly TokenLogprob[] })[] {
  return (logprobs as { content: ReturnType<typeof chatLogprobs> }).content;
}

/** Of the whole vocabulary; the token that a greedy request takes is the likeliest. */
function expectDistribution(logprobs: readonly number[], sampled: number): void {
  expect(logprobs).toHaveLength(vocabSize);
  expect(logprobs.reduce((sum, logprob) => sum + Math.exp(logprob), 0)).toBeCloseTo(1, 4);
  expect(Math.max(...logprobs)).toBe(sampled);
}

function streamedText(chunks: Awaited<ReturnType<LiveApi['stream']>>): string {
  return chunks.map(({ choices: [choice] }) => choice?.text ?? choice?.delta?.content ?? '').join('');
}

async function promptText(api: LiveApi, fields: object): Promise<string> {
  const { prompt_text: text } = await api.ask({ max_tokens: 1, return_prompt_text: true, ...fields });
  return text ?? '';
}
