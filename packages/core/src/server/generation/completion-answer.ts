/** The answers of /v1/completions, whole and streamed. Choice `promptIndex * n + i` is the i-th of its prompt. */
import type { CompletionOutput, Logprob, Prompt, RequestOutput } from '../../engine/types.js';
import type { SamplingParams } from '../../sampling/sampling-params.js';
import type { CompletionRequest } from '../schemas/completions.js';
import type { ServerContext } from '../server-context.js';
import { type Answer, metricsOf, TokenCounts } from './answer.js';
import { ChunkFormat } from './chunk-format.js';
import { promptText } from './completion-prompts.js';
import { DeltaBuffer } from './delta-buffer.js';
import { type CompletionLogprobs, completionLogprobs, promptLogprobs } from './logprobs.js';
import type { AnswerStream } from './run-requests.js';
import { isPromptOnly } from './sampling-from-request.js';
import type { SseWriter } from './sse-writer.js';

export interface CompletionJob {
  readonly body: CompletionRequest;
  readonly answer: Answer;
  readonly prompts: readonly Prompt[];
  readonly params: SamplingParams;
  readonly context: ServerContext;
}

export function completionAnswer(job: CompletionJob, outputs: readonly RequestOutput[]): unknown {
  const { answer, params, context } = job;
  const counts = new TokenCounts();
  const choices = outputs.flatMap((output, promptIndex) => {
    counts.addPrompt(promptIndex, output);
    return output.outputs
      .toSorted((a, b) => a.index - b.index)
      .map((sequence) => {
        const choiceIndex = promptIndex * params.n + sequence.index;
        const shown = isPromptOnly(job.body) ? promptOnly(sequence) : sequence;
        counts.addGenerated(choiceIndex, shown.tokenIds.length);
        return completionChoice(job, promptIndex, choiceIndex, output, shown);
      });
  });
  const { id, created, model, systemFingerprint } = answer;
  return {
    id,
    object: 'text_completion',
    created,
    model,
    choices,
    system_fingerprint: systemFingerprint,
    usage: counts.usage(context.options.enablePromptTokensDetails),
    metrics: metricsOf(outputs[0], choices.length, counts.numGenerated, context),
  };
}

function completionChoice(
  job: CompletionJob,
  promptIndex: number,
  choiceIndex: number,
  output: RequestOutput,
  sequence: CompletionOutput,
): unknown {
  const { answer, body, params } = job;
  const echoed = body.echo === true ? echoOf(job, promptIndex, output) : noEcho;
  const showsPromptLogprobs = body.prompt_logprobs !== undefined && output.promptLogprobs !== undefined;
  return {
    index: choiceIndex,
    text: echoed.text + sequence.text,
    logprobs: params.logprobs === undefined ? null : choiceLogprobs(job, echoed, sequence, 0),
    finish_reason: sequence.finishReason ?? null,
    stop_reason: sequence.stopReason ?? null,
    token_ids: answer.returnTokenIds ? sequence.tokenIds : undefined,
    prompt_token_ids: answer.returnTokenIds ? output.promptTokenIds : undefined,
    prompt_logprobs: showsPromptLogprobs ? promptLogprobs(output.promptLogprobs, answer.spelling) : undefined,
  };
}

/** What `echo` puts before a choice. */
interface Echo {
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly (readonly Logprob[] | undefined)[];
}

const noEcho: Echo = { text: '', tokenIds: [], logprobs: [] };

function echoOf(job: CompletionJob, promptIndex: number, output: RequestOutput): Echo {
  const prompt = job.prompts[promptIndex] ?? { tokenIds: output.promptTokenIds };
  return {
    text: promptText(prompt, job.context),
    tokenIds: output.promptTokenIds,
    logprobs: output.promptLogprobs ?? [],
  };
}

/** `textOffset`: characters of the choice before this part. */
function choiceLogprobs(
  job: CompletionJob,
  echoed: Echo,
  sequence: CompletionOutput,
  textOffset: number,
): CompletionLogprobs {
  return completionLogprobs(
    [...echoed.tokenIds, ...sequence.tokenIds],
    [...echoed.logprobs, ...(sequence.logprobs ?? [])],
    job.answer.spelling,
    textOffset,
  );
}

/** `max_tokens` 0: the one token that the engine had to make is not shown. */
function promptOnly(sequence: CompletionOutput): CompletionOutput {
  return {
    ...sequence,
    text: '',
    tokenIds: [],
    logprobs: sequence.logprobs === undefined ? undefined : [],
    finishReason: sequence.finishReason === undefined ? undefined : 'length',
    stopReason: undefined,
  };
}

export class CompletionStream implements AnswerStream {
  readonly #job: CompletionJob;
  readonly #format: ChunkFormat;
  readonly #counts = new TokenCounts();
  readonly #buffers: DeltaBuffer[];
  /** Characters sent so far, by choice; a choice without an entry has had no chunk yet. */
  readonly #textLengths = new Map<number, number>();
  #lastOutput: RequestOutput | undefined;

  constructor(job: CompletionJob) {
    this.#job = job;
    this.#format = new ChunkFormat({ ...job.answer, object: 'text_completion' });
    this.#buffers = job.prompts.map(() => new DeltaBuffer(job.answer.streamInterval));
  }

  onOutput(promptIndex: number, output: RequestOutput, writer: SseWriter): void {
    this.#counts.addPrompt(promptIndex, output);
    this.#lastOutput = output;
    for (const sequence of output.outputs) {
      const shown = isPromptOnly(this.#job.body) ? promptOnly(sequence) : sequence;
      const delta = this.#buffers[promptIndex]?.push(shown);
      if (delta !== undefined) this.#writeDelta(promptIndex, output, delta, writer);
    }
  }

  onEnd(writer: SseWriter): void {
    const { answer, context, prompts, params } = this.#job;
    if (!answer.includeUsage) return;
    const usage = this.#counts.usage(context.options.enablePromptTokensDetails);
    const metrics = metricsOf(
      this.#lastOutput,
      prompts.length * params.n,
      this.#counts.numGenerated,
      context,
    );
    writer.write(this.#format.usageChunk(usage, metrics));
  }

  #writeDelta(promptIndex: number, output: RequestOutput, delta: CompletionOutput, writer: SseWriter): void {
    const { answer, body, params } = this.#job;
    const choiceIndex = promptIndex * params.n + delta.index;
    const textLength = this.#textLengths.get(choiceIndex);
    const isFirst = textLength === undefined;
    const echoed = isFirst && body.echo === true ? echoOf(this.#job, promptIndex, output) : noEcho;
    this.#counts.addGenerated(choiceIndex, delta.tokenIds.length);
    const text = echoed.text + delta.text;
    const wantsTokens = answer.returnTokenIds || params.logprobs !== undefined;
    if (text === '' && delta.finishReason === undefined && !(wantsTokens && delta.tokenIds.length > 0))
      return;
    this.#textLengths.set(choiceIndex, (textLength ?? 0) + text.length);
    const hasLogprobs = params.logprobs !== undefined;
    writer.write(
      this.#format.chunk({
        choiceIndex,
        payload: `"text":${JSON.stringify(text)}`,
        logprobs: hasLogprobs ? choiceLogprobs(this.#job, echoed, delta, textLength ?? 0) : undefined,
        finishReason: delta.finishReason,
        stopReason: delta.stopReason,
        tokenIds: answer.returnTokenIds ? delta.tokenIds : undefined,
        choiceMembers:
          answer.returnTokenIds && isFirst
            ? `,"prompt_token_ids":[${output.promptTokenIds.join(',')}]`
            : undefined,
        usage: answer.continuousUsage ? this.#counts.choiceUsage(promptIndex, choiceIndex) : undefined,
      }),
    );
  }
}
