/** A small engine for server tests: letters that depend on the prompt alone, over a tokenizer of bytes. */
import { setTimeout } from 'node:timers/promises';

import type {
  CompletionOutput,
  Engine,
  EngineInfo,
  EngineStats,
  FinishedRequest,
  FinishReason,
  GenerateRequest,
  Logprob,
  RequestOutput,
  StepObservation,
} from '../../src/engine/types.js';
import { TenonError } from '../../src/errors.js';
import type { ChatMessage, ChatTemplateOptions, Tokenizer } from '../../src/tokenizer/types.js';

export const bos = 256;
export const vocabSize = 258;

/** Token = byte; BOS is 256, EOS 257. Chat: `role:content;` per message, then `assistant:`. */
export class ByteTokenizer implements Tokenizer {
  readonly vocabSize = vocabSize;
  readonly bosTokenId = bos;
  readonly eosTokenId = 257;
  readonly chatTemplate: string | undefined = '{{ messages }}';
  lastTemplateOptions: ChatTemplateOptions | undefined;
  lastMessages: readonly ChatMessage[] = [];

  encode(text: string, options: { addSpecialTokens?: boolean } = {}): number[] {
    return [...(options.addSpecialTokens === false ? [] : [bos]), ...Buffer.from(text)];
  }

  async encodeAsync(text: string, options?: { addSpecialTokens?: boolean }): Promise<number[]> {
    return this.encode(text, options);
  }

  decode(tokenIds: readonly number[]): string {
    return Buffer.from(tokenIds.filter((id) => id < 256)).toString();
  }

  idToToken(tokenId: number): string {
    return tokenId < 256 ? String.fromCodePoint(tokenId) : `<${tokenId}>`;
  }

  tokenToId(token: string): number | undefined {
    return token.codePointAt(0);
  }

  isSpecial(tokenId: number): boolean {
    return tokenId >= 256;
  }

  tokenBytes(tokenId: number): Uint8Array {
    return Buffer.from(this.idToToken(tokenId));
  }

  incremental(): { push: (ids: readonly number[]) => string; flush: () => string } {
    return { push: (ids) => this.decode(ids), flush: () => '' };
  }

  applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    this.lastMessages = messages;
    this.lastTemplateOptions = options;
    if (options.chatTemplate?.includes('{% raise')) {
      throw new TenonError('request.chat-template', 'the chat template failed: raised');
    }
    const open = options.addGenerationPrompt === true ? 'assistant:' : '';
    return messages.map(({ role, content }) => `${role}:${content as string};`).join('') + open;
  }

  async close(): Promise<void> {}
}

export interface Script {
  readonly info?: Partial<EngineInfo>;
  readonly tokenizer?: Tokenizer | undefined;
  /** Waits before each token. */
  readonly tokenDelayMs?: number;
  /** Fails each request when it has made this many tokens. */
  readonly failAfterTokens?: number;
  readonly failure?: TenonError;
  /** Tokens that carry no text yet, as parts of a character do. */
  readonly heldBackTokens?: readonly number[];
  readonly numCachedTokens?: number;
  /** What every sequence says to a prompt, in ASCII, a token per character; then it stops. */
  readonly answer?: (prompt: string) => string;
}

export class ScriptedEngine implements Engine {
  readonly info: EngineInfo;
  readonly tokenizer: Tokenizer | undefined;
  readonly defaultSamplingParams = {};
  readonly requests: GenerateRequest[] = [];
  readonly aborted: string[] = [];
  readonly #script: Script;
  readonly #finished: ((request: FinishedRequest) => void)[] = [];
  readonly #steps: ((step: StepObservation) => void)[] = [];
  readonly #closing = new AbortController();
  #numRunning = 0;
  unhealthyReason: string | undefined;

  constructor(script: Script = {}) {
    this.#script = script;
    this.tokenizer = 'tokenizer' in script ? script.tokenizer : new ByteTokenizer();
    this.info = { ...scriptedInfo, ...script.info };
  }

  async *generate(request: GenerateRequest): AsyncGenerator<RequestOutput> {
    this.requests.push(request);
    const prompt = this.#promptTokens(request);
    this.#numRunning += 1;
    try {
      yield* this.#run(request, prompt);
    } finally {
      this.#numRunning -= 1;
    }
  }

  #promptTokens({ prompt, addSpecialTokens }: GenerateRequest): readonly number[] {
    if (this.#closing.signal.aborted) throw new TenonError('capacity.shutting-down', 'the engine is closed');
    const tokens =
      'tokenIds' in prompt
        ? prompt.tokenIds
        : (this.tokenizer?.encode(prompt.text, { addSpecialTokens }) ?? []);
    if (tokens.length >= this.info.maxModelLen) {
      const message = `the prompt has ${tokens.length} tokens; the model length is ${this.info.maxModelLen}`;
      throw new TenonError('request.prompt-too-long', message, { param: 'prompt' });
    }
    return tokens;
  }

  async *#run(request: GenerateRequest, prompt: readonly number[]): AsyncGenerator<RequestOutput> {
    const { params, signal } = request;
    const arrivalMs = performance.now();
    const said = this.#script.answer?.(Buffer.from(prompt).toString());
    const answer = said === undefined ? undefined : [...Buffer.from(said)];
    const maxTokens = Math.min(params.maxTokens ?? answer?.length ?? 8, answer?.length ?? Infinity);
    const end = answer?.length === maxTokens ? 'stop' : 'length';
    const sequences = Array.from(
      { length: params.n },
      (_, index) => answer ?? scriptedTokens(prompt, index, maxTokens),
    );
    for (let k = 0; k < maxTokens; k++) {
      if (this.#script.tokenDelayMs !== undefined) await this.#pause(this.#script.tokenDelayMs, signal);
      if (signal?.aborted) {
        this.aborted.push(request.requestId);
        return;
      }
      if (this.#closing.signal.aborted)
        throw new TenonError('capacity.shutting-down', 'the server stopped before the end');
      if (k === this.#script.failAfterTokens)
        throw this.#script.failure ?? new TenonError('backend.step-failed', 'boom');
      const numSeqs = params.n;
      const step = {
        numTokens: numSeqs,
        numSeqs,
        computeMicros: 0,
        idleMicros: 0,
        interTokenMs: k === 0 ? [] : [1],
      };
      for (const listener of this.#steps) listener(step);
      const finished = k === maxTokens - 1;
      if (params.outputKind !== 'delta' && !finished) continue;
      const from = params.outputKind === 'delta' ? k : 0;
      yield {
        requestId: request.requestId,
        promptTokenIds: prompt,
        promptLogprobs: promptLogprobs(prompt, params.promptLogprobs),
        outputs: sequences.map((tokens, index) =>
          this.#output(index, tokens.slice(from, k + 1), params.logprobs, finished ? end : undefined),
        ),
        finished,
        numCachedTokens: this.#script.numCachedTokens ?? 0,
        metrics: {
          arrivalMs,
          scheduledMs: arrivalMs + 1,
          firstTokenMs: arrivalMs + 2,
          lastTokenMs: arrivalMs + 2 + k,
        },
      };
    }
    const metrics = {
      arrivalMs,
      scheduledMs: arrivalMs + 1,
      firstTokenMs: arrivalMs + 2,
      lastTokenMs: arrivalMs + 3,
    };
    for (const listener of this.#finished) {
      listener({
        requestId: request.requestId,
        numPromptTokens: prompt.length,
        numCachedTokens: this.#script.numCachedTokens ?? 0,
        numGenerationTokens: maxTokens * params.n,
        finishReason: 'length',
        params,
        metrics,
        finishedMs: arrivalMs + 4,
      });
    }
  }

  #output(
    index: number,
    tokenIds: readonly number[],
    numLogprobs: number | undefined,
    finishReason: FinishReason | undefined,
  ): CompletionOutput {
    const shown = tokenIds.filter((id) => !this.#script.heldBackTokens?.includes(id));
    return {
      index,
      text: this.tokenizer?.decode(shown) ?? '',
      tokenIds,
      logprobs: numLogprobs === undefined ? undefined : tokenIds.map((id) => tokenLogprobs(id, numLogprobs)),
      finishReason,
      stopReason: undefined,
    };
  }

  async #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const signals = [this.#closing.signal, ...(signal === undefined ? [] : [signal])];
    await setTimeout(ms, undefined, { signal: AbortSignal.any(signals) }).catch(() => undefined);
  }

  stats(): EngineStats {
    return { ...scriptedStats, numRunning: this.#numRunning };
  }

  onRequestFinished(listener: (request: FinishedRequest) => void): void {
    this.#finished.push(listener);
  }

  onStep(listener: (step: StepObservation) => void): void {
    this.#steps.push(listener);
  }

  onDeath(): void {}

  health(): { ok: boolean; reason?: string } {
    return this.unhealthyReason === undefined ? { ok: true } : { ok: false, reason: this.unhealthyReason };
  }

  async resetPrefixCache(): Promise<void> {}

  async close({ timeoutMs = 0 }: { timeoutMs?: number } = {}): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (this.#numRunning > 0 && performance.now() < deadline) await setTimeout(5);
    this.#closing.abort();
    while (this.#numRunning > 0) await setTimeout(5);
  }
}

/** Letters a…z that depend on the prompt's tokens and the sequence's index. */
export function scriptedTokens(prompt: readonly number[], index: number, count: number): number[] {
  const start = prompt.reduce((sum, id) => sum + id, 0) + index * 7;
  return Array.from({ length: count }, (_, k) => 97 + ((start + k * 5) % 26));
}

export function scriptedText(prompt: readonly number[], index: number, count: number): string {
  return String.fromCodePoint(...scriptedTokens(prompt, index, count));
}

function tokenLogprobs(tokenId: number, numTop: number): Logprob[] {
  const own = { tokenId, logprob: -0.5, rank: 1 };
  const others = Array.from({ length: Math.max(0, numTop - 1) }, (_, i) => ({
    tokenId: 65 + i,
    logprob: i === 1 ? Number.NEGATIVE_INFINITY : -1.5 - i,
    rank: i + 2,
  }));
  return [own, ...(numTop > 0 ? [own] : []), ...others];
}

function promptLogprobs(
  prompt: readonly number[],
  numTop: number | undefined,
): (Logprob[] | undefined)[] | undefined {
  if (numTop === undefined) return undefined;
  return prompt.map((id, i) => (i === 0 ? undefined : tokenLogprobs(id, numTop)));
}

const scriptedInfo: EngineInfo = {
  modelName: 'scripted',
  modelPath: '/models/scripted',
  architecture: 'LlamaForCausalLM',
  dtype: 'float32',
  device: 'none',
  backend: { id: 'scripted', version: '0.0.0', runtime: {} },
  vocabSize,
  maxModelLen: 256,
  blockSize: 16,
  numBlocks: 64,
  maxNumSeqs: 16,
  maxNumBatchedTokens: 512,
  maxLogprobs: 20,
  enablePrefixCaching: true,
  gpuMemoryUtilization: 0.92,
  weightsBytes: 0,
  kvBytes: 0,
  priorityScheduling: false,
  logitsProcessors: [],
};

const scriptedStats: EngineStats = {
  numRunning: 0,
  numWaiting: 0,
  numFreeBlocks: 64,
  numUsedBlocks: 0,
  numBlocks: 64,
  kvCacheUsage: 0,
  numPreemptionsTotal: 0,
  numPreemptedEndsTotal: 0,
  prefixCacheQueriesTotal: 5,
  prefixCacheHitsTotal: 3,
  numPromptTokensTotal: 11,
  numGenerationTokensTotal: 17,
  numStepsTotal: 1,
  numStepsInFlight: 0,
  numRestartsTotal: 0,
};
