/** The answers of /v1/chat/completions, whole and streamed. */
import type { CompletionOutput, RequestOutput } from '../../engine/types.js';
import type { SamplingParams } from '../../sampling/sampling-params.js';
import type { ChatCompletionRequest } from '../schemas/chat-completions.js';
import type { ServerContext } from '../server-context.js';
import { type Answer, metricsOf, TokenCounts } from './answer.js';
import { ChunkFormat } from './chunk-format.js';
import { DeltaBuffer } from './delta-buffer.js';
import { type ChatLogprobs, chatLogprobs, promptLogprobs } from './logprobs.js';
import type { AnswerStream } from './run-requests.js';
import type { SseWriter } from './sse-writer.js';

export interface ChatJob {
  readonly body: ChatCompletionRequest;
  readonly answer: Answer;
  readonly promptText: string;
  readonly params: SamplingParams;
  readonly context: ServerContext;
}

export function chatAnswer(job: ChatJob, output: RequestOutput): unknown {
  const { answer, body, context } = job;
  const counts = new TokenCounts();
  counts.addPrompt(0, output);
  for (const sequence of output.outputs) counts.addGenerated(sequence.index, sequence.tokenIds.length);
  const choices = output.outputs
    .toSorted((a, b) => a.index - b.index)
    .map((sequence) => chatChoice(job, sequence));
  const { id, created, model, systemFingerprint } = answer;
  const hasPromptLogprobs = output.promptLogprobs !== undefined;
  return {
    id,
    object: 'chat.completion',
    created,
    model,
    choices,
    system_fingerprint: systemFingerprint,
    usage: counts.usage(context.options.enablePromptTokensDetails),
    prompt_logprobs: hasPromptLogprobs ? promptLogprobs(output.promptLogprobs, answer.spelling) : null,
    prompt_token_ids: answer.returnTokenIds ? output.promptTokenIds : undefined,
    prompt_text: body.return_prompt_text === true ? job.promptText : undefined,
    metrics: metricsOf(output, choices.length, counts.numGenerated, context),
  };
}

function chatChoice(job: ChatJob, sequence: CompletionOutput): unknown {
  return {
    index: sequence.index,
    message: { role: roleOf(job), content: echoOf(job) + sequence.text, refusal: null },
    logprobs: sequenceLogprobs(job, sequence) ?? null,
    finish_reason: sequence.finishReason ?? null,
    stop_reason: sequence.stopReason ?? null,
    token_ids: job.answer.returnTokenIds ? sequence.tokenIds : undefined,
  };
}

function sequenceLogprobs({ params, answer }: ChatJob, sequence: CompletionOutput): ChatLogprobs | undefined {
  if (params.logprobs === undefined) return undefined;
  return chatLogprobs(sequence.tokenIds, sequence.logprobs ?? [], params.logprobs, answer.spelling);
}

/** A message that is gone on with keeps its role. */
function roleOf({ body, context }: ChatJob): string {
  const opensMessage = body.add_generation_prompt ?? body.continue_final_message !== true;
  return opensMessage
    ? context.options.responseRole
    : (body.messages.at(-1)?.role ?? context.options.responseRole);
}

/** `echo`: the last message, where the answer goes on with it. */
function echoOf(job: ChatJob): string {
  const last = job.body.messages.at(-1);
  if (job.body.echo !== true || last?.role !== roleOf(job)) return '';
  if (typeof last.content === 'string') return last.content;
  return (last.content ?? []).map((part) => part.text ?? '').join('\n');
}

export class ChatStream implements AnswerStream {
  readonly #job: ChatJob;
  readonly #format: ChunkFormat;
  readonly #counts = new TokenCounts();
  readonly #buffer: DeltaBuffer;
  #lastOutput: RequestOutput | undefined;

  constructor(job: ChatJob) {
    this.#job = job;
    this.#format = new ChunkFormat({ ...job.answer, object: 'chat.completion.chunk' });
    this.#buffer = new DeltaBuffer(job.answer.streamInterval);
  }

  onOutput(_promptIndex: number, output: RequestOutput, writer: SseWriter): void {
    this.#counts.addPrompt(0, output);
    if (this.#lastOutput === undefined) this.#open(output, writer);
    this.#lastOutput = output;
    for (const sequence of output.outputs) {
      const delta = this.#buffer.push(sequence);
      if (delta !== undefined) this.#writeDelta(delta, writer);
    }
  }

  onEnd(writer: SseWriter): void {
    const { answer, context, params } = this.#job;
    if (!answer.includeUsage) return;
    const usage = this.#counts.usage(context.options.enablePromptTokensDetails);
    const metrics = metricsOf(this.#lastOutput, params.n, this.#counts.numGenerated, context);
    writer.write(this.#format.usageChunk(usage, metrics));
  }

  /** The role chunk of every choice, with what is told once. */
  #open(output: RequestOutput, writer: SseWriter): void {
    const { answer, body, params, promptText } = this.#job;
    const role = `"delta":{"role":${JSON.stringify(roleOf(this.#job))},"content":""}`;
    let chunkMembers = answer.returnTokenIds
      ? `,"prompt_token_ids":[${output.promptTokenIds.join(',')}]`
      : '';
    if (body.return_prompt_text === true) chunkMembers += `,"prompt_text":${JSON.stringify(promptText)}`;
    const echoed = echoOf(this.#job);
    for (let index = 0; index < params.n; index++) {
      writer.write(
        this.#format.chunk({ choiceIndex: index, payload: role, chunkMembers, usage: this.#usage(index) }),
      );
      if (echoed !== '') writer.write(this.#contentChunk(index, echoed));
    }
  }

  #writeDelta(delta: CompletionOutput, writer: SseWriter): void {
    const { answer, params } = this.#job;
    this.#counts.addGenerated(delta.index, delta.tokenIds.length);
    const wantsTokens = answer.returnTokenIds || params.logprobs !== undefined;
    if (delta.text === '' && delta.finishReason === undefined && !(wantsTokens && delta.tokenIds.length > 0))
      return;
    writer.write(this.#contentChunk(delta.index, delta.text, delta));
  }

  #contentChunk(choiceIndex: number, text: string, delta?: CompletionOutput): string {
    return this.#format.chunk({
      choiceIndex,
      payload: `"delta":{"content":${JSON.stringify(text)}}`,
      logprobs: delta && sequenceLogprobs(this.#job, delta),
      finishReason: delta?.finishReason,
      stopReason: delta?.stopReason,
      tokenIds: this.#job.answer.returnTokenIds ? delta?.tokenIds : undefined,
      usage: this.#usage(choiceIndex),
    });
  }

  #usage(choiceIndex: number): ReturnType<TokenCounts['choiceUsage']> | undefined {
    return this.#job.answer.continuousUsage ? this.#counts.choiceUsage(0, choiceIndex) : undefined;
  }
}
