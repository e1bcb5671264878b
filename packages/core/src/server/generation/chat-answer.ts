/** The answers of /v1/chat/completions, whole and streamed. */
import type { CompletionOutput, RequestOutput } from '../../engine/types.js';
import type { SamplingParams } from '../../sampling/sampling-params.js';
import type { ChatCompletionRequest } from '../schemas/chat-completions.js';
import type { ServerContext } from '../server-context.js';
import type { ToolCalling } from '../tool-calls/tool-calling.js';
import { joinDeltas, type ToolCall, ToolCallReader } from '../tool-calls/tool-call-reader.js';
import { type Answer, metricsOf, TokenCounts } from './answer.js';
import { type AnswerEnd, ChunkFormat } from './chunk-format.js';
import { DeltaBuffer } from './delta-buffer.js';
import { type ChatLogprobs, chatLogprobs, promptLogprobs } from './logprobs.js';
import type { AnswerStream } from './run-requests.js';
import type { SseWriter } from './sse-writer.js';

export interface ChatJob {
  readonly body: ChatCompletionRequest;
  readonly answer: Answer;
  readonly promptText: string;
  readonly params: SamplingParams;
  /** Undefined: answers are text. */
  readonly toolCalling: ToolCalling | undefined;
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
  const { hasCalls, ...answer } = answered(job, sequence.text);
  return {
    index: sequence.index,
    message: { role: roleOf(job), ...answer, refusal: null },
    logprobs: sequenceLogprobs(job, sequence) ?? null,
    finish_reason: endOf(sequence, hasCalls) ?? null,
    stop_reason: sequence.stopReason ?? null,
    token_ids: job.answer.returnTokenIds ? sequence.tokenIds : undefined,
  };
}

/** Content is null where there are calls and nothing else. */
function answered(
  job: ChatJob,
  text: string,
): { content: string | null; tool_calls?: ToolCall[]; hasCalls: boolean } {
  const echoed = echoOf(job);
  if (job.toolCalling === undefined) return { content: echoed + text, hasCalls: false };
  const reader = new ToolCallReader(job.toolCalling);
  const { content, toolCalls } = joinDeltas([...reader.push(text), ...reader.finish()]);
  if (toolCalls.length === 0) return { content: echoed + content, hasCalls: false };
  return { content: echoed + content || null, tool_calls: toolCalls, hasCalls: true };
}

/** An answer that was cut off says so, also where it made calls. */
function endOf({ finishReason }: CompletionOutput, hasCalls: boolean): AnswerEnd | undefined {
  return hasCalls && finishReason === 'stop' ? 'tool_calls' : finishReason;
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
  /** By choice; empty where answers are text. */
  readonly #readers: readonly ToolCallReader[];
  #lastOutput: RequestOutput | undefined;

  constructor(job: ChatJob) {
    this.#job = job;
    this.#format = new ChunkFormat({ ...job.answer, object: 'chat.completion.chunk' });
    this.#buffer = new DeltaBuffer(job.answer.streamInterval);
    const { toolCalling, params } = job;
    this.#readers =
      toolCalling === undefined
        ? []
        : Array.from({ length: params.n }, () => new ToolCallReader(toolCalling));
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
      if (echoed !== '') writer.write(this.#chunk(index, { content: echoed }));
    }
  }

  /** What is told of the tokens goes with the last chunk that they gave. */
  #writeDelta(delta: CompletionOutput, writer: SseWriter): void {
    const { answer, params } = this.#job;
    this.#counts.addGenerated(delta.index, delta.tokenIds.length);
    const deltas = this.#read(delta);
    const wantsTokens = answer.returnTokenIds || params.logprobs !== undefined;
    const isTold = delta.finishReason !== undefined || (wantsTokens && delta.tokenIds.length > 0);
    if (deltas.length === 0 && isTold) deltas.push(this.#readers.length > 0 ? {} : { content: '' });
    deltas.forEach((found, i) => {
      writer.write(this.#chunk(delta.index, found, i === deltas.length - 1 ? delta : undefined));
    });
  }

  #read({ index, text, finishReason }: CompletionOutput): object[] {
    const reader = this.#readers[index];
    if (reader === undefined) return text === '' ? [] : [{ content: text }];
    return [...reader.push(text), ...(finishReason === undefined ? [] : reader.finish())];
  }

  #chunk(choiceIndex: number, delta: object, output?: CompletionOutput): string {
    return this.#format.chunk({
      choiceIndex,
      payload: `"delta":${JSON.stringify(delta)}`,
      logprobs: output && sequenceLogprobs(this.#job, output),
      finishReason: output && endOf(output, this.#readers[choiceIndex]?.hasCalls === true),
      stopReason: output?.stopReason,
      tokenIds: this.#job.answer.returnTokenIds ? output?.tokenIds : undefined,
      usage: this.#usage(choiceIndex),
    });
  }

  #usage(choiceIndex: number): ReturnType<TokenCounts['choiceUsage']> | undefined {
    return this.#job.answer.continuousUsage ? this.#counts.choiceUsage(0, choiceIndex) : undefined;
  }
}
