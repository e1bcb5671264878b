/** The library: a model as an object, for programs that need no server. */
import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import type { EngineOptions } from './config/engine-options.js';
import { createEngine, explainModel, type EngineHost, type LoadedEngine } from './container.js';
import type { Engine, GenerateRequest, Prompt, RequestOutput } from './engine/types.js';
import { TenonError } from './errors.js';
import { resolveSamplingParams } from './sampling/resolve-sampling-params.js';
import type { SamplingParams } from './sampling/sampling-params.js';
import type { ChatMessage, ChatTemplateOptions, Tokenizer } from './tokenizer/types.js';

/** A text, or token ids. */
export type PromptInput = string | readonly number[] | Prompt;

export interface CallOptions {
  /** Ends the request early: its output is what there is by then, with finish reason `abort`. */
  readonly signal?: AbortSignal;
  /** Lower runs first; needs `schedulingPolicy: 'priority'`. */
  readonly priority?: number;
  /** Only requests of the same salt share cached prefixes. */
  readonly cacheSalt?: string;
}

export type ChatOptions = CallOptions & ChatTemplateOptions;

/** As vLLM's: an answer to a bare prompt ends after this many tokens, unless it says otherwise. */
const defaultMaxTokens = 16;

/**
 * A loaded model.
 *
 * ```ts
 * await using llm = await LLM.load('./model');
 * const [output] = await llm.generate('Once upon a time', { maxTokens: 32 });
 * console.log(output.outputs[0].text);
 * ```
 */
export class LLM {
  readonly #loaded: LoadedEngine;

  private constructor(loaded: LoadedEngine) {
    this.#loaded = loaded;
  }

  /**
   * Loads a model: a Hugging Face folder, a GGUF file or a hub id.
   * @throws TenonError of kind config, capacity or unsupported, saying what to do.
   */
  static async load(model: string, options: EngineOptions = {}, host: EngineHost = {}): Promise<LLM> {
    return new LLM(await createEngine(model, options, host));
  }

  /** The plan as a table: ops, kernels, bytes, and why. Reads the model's headers only, so that any model is explained at once. */
  static explain(model: string, options: EngineOptions = {}, host: EngineHost = {}): Promise<string> {
    return explainModel(model, options, host);
  }

  /** The engine below, as the server uses it: statistics, health, streams. */
  get engine(): Engine {
    return this.#loaded.engine;
  }

  /** @throws `request.no-tokenizer` where the model was loaded without one. */
  get tokenizer(): Tokenizer {
    const { tokenizer } = this.engine;
    if (tokenizer === undefined)
      throw new TenonError('request.no-tokenizer', 'the model has no tokenizer; use token ids');
    return tokenizer;
  }

  /**
   * Continues one prompt or several, together. Results are in the order of the prompts. One set of sampling parameters is for
   * all; a list gives each its own. By default, 16 tokens at most.
   */
  async generate(
    prompts: PromptInput | readonly PromptInput[],
    params: Partial<SamplingParams> | readonly Partial<SamplingParams>[] = {},
    options: CallOptions = {},
  ): Promise<RequestOutput[]> {
    const list = isPromptList(prompts) ? prompts : [prompts];
    const requests = list.map((prompt, i) => {
      const own = isParamsList(params) ? params[i] : params;
      if (own === undefined) throw mismatched(list.length, (params as readonly unknown[]).length);
      return this.#request(
        toPrompt(prompt),
        { maxTokens: defaultMaxTokens, ...own, outputKind: 'final' },
        options,
      );
    });
    return this.#runAll(requests);
  }

  /**
   * Answers a conversation, or several, each as its own request. The answer may take all the room that is left.
   */
  async chat(
    messages: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    params: Partial<SamplingParams> = {},
    options: ChatOptions = {},
  ): Promise<RequestOutput[]> {
    const conversations = isConversationList(messages) ? messages : [messages];
    const requests = conversations.map((conversation) =>
      this.#chatRequest(conversation, { ...params, outputKind: 'final' }, options),
    );
    return this.#runAll(requests);
  }

  /**
   * Continues one prompt, output by output: by default what is new since the last one (`outputKind: 'delta'`). Leaving the
   * loop ends the request.
   */
  stream(
    prompt: PromptInput,
    params: Partial<SamplingParams> = {},
    options: CallOptions = {},
  ): AsyncIterable<RequestOutput> {
    const request = this.#request(
      toPrompt(prompt),
      { maxTokens: defaultMaxTokens, outputKind: 'delta', ...params },
      options,
    );
    return this.engine.generate(request);
  }

  /** Answers a conversation, output by output, as `stream` does. */
  streamChat(
    messages: readonly ChatMessage[],
    params: Partial<SamplingParams> = {},
    options: ChatOptions = {},
  ): AsyncIterable<RequestOutput> {
    return this.engine.generate(this.#chatRequest(messages, { outputKind: 'delta', ...params }, options));
  }

  /** The plan that runs, as `LLM.explain` shows it. */
  explain(): string {
    return this.#loaded.runtime.explanation;
  }

  /** Fails what is still running and frees the device. Idempotent. */
  async close(): Promise<void> {
    await this.engine.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #request(prompt: Prompt, params: Partial<SamplingParams>, options: CallOptions): GenerateRequest {
    const { signal, priority, cacheSalt } = options;
    const resolved = resolveSamplingParams(params, this.engine.defaultSamplingParams, this.engine.info);
    return { requestId: randomUUID(), prompt, params: resolved, signal, priority, cacheSalt };
  }

  /** Chat templates write the special tokens themselves. */
  #chatRequest(
    messages: readonly ChatMessage[],
    params: Partial<SamplingParams>,
    options: ChatOptions,
  ): GenerateRequest {
    const text = this.tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, ...options });
    return { ...this.#request({ text }, params, options), addSpecialTokens: false };
  }

  /** If one fails, the others are aborted. */
  async #runAll(requests: readonly GenerateRequest[]): Promise<RequestOutput[]> {
    const failure = new AbortController();
    setMaxListeners(0, failure.signal);
    const run = async (request: GenerateRequest): Promise<RequestOutput> => {
      const signal =
        request.signal === undefined ? failure.signal : AbortSignal.any([request.signal, failure.signal]);
      for await (const output of this.engine.generate({ ...request, signal }))
        if (output.finished) return output;
      throw new TenonError('internal.invariant', `request ${request.requestId} ended without an output`);
    };
    try {
      return await Promise.all(requests.map(run));
    } catch (error) {
      failure.abort();
      throw error;
    }
  }
}

function toPrompt(prompt: PromptInput): Prompt {
  if (typeof prompt === 'string') return { text: prompt };
  return 'text' in prompt || 'tokenIds' in prompt ? prompt : { tokenIds: prompt };
}

/** A list of numbers is one prompt. */
function isPromptList(prompts: PromptInput | readonly PromptInput[]): prompts is readonly PromptInput[] {
  return Array.isArray(prompts) && typeof prompts[0] !== 'number';
}

function isParamsList(
  params: Partial<SamplingParams> | readonly Partial<SamplingParams>[],
): params is readonly Partial<SamplingParams>[] {
  return Array.isArray(params);
}

function isConversationList(
  messages: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
): messages is readonly (readonly ChatMessage[])[] {
  return Array.isArray(messages[0]);
}

function mismatched(numPrompts: number, numParams: number): TenonError {
  const message = `there are ${numPrompts} prompts and ${numParams} sampling parameters; expected one for all or one for each`;
  return new TenonError('request.invalid-value', message, { param: 'params' });
}
