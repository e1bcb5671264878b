/** The logits processors of an engine, and each at work on one sequence. Runs where the core runs. */
import { TenonError } from '../errors.js';
import type {
  LogitsEdits,
  LogitsProcessor,
  LogitsProcessorContext,
  LogitsProcessorExtension,
  Vocabulary,
} from '../extensions/logits-processor.js';
import { editSamplerRow, type ProcessorAnswer } from '../sampling/edit-sampler-row.js';
import type { SamplerRow } from '../sampling/sampler-row.js';
import { readVocabulary, type VocabularyData } from '../tokenizer/vocabulary-data.js';
import type { CoreRequest } from './core-messages.js';

export interface NamedProcessor {
  readonly name: string;
  readonly extension: LogitsProcessorExtension;
}

interface ActiveProcessor {
  readonly name: string;
  readonly processor: LogitsProcessor;
}

export class LogitsProcessors {
  readonly #processors: readonly NamedProcessor[];
  readonly #vocabSize: number;
  readonly #maxModelLen: number;
  #vocabulary: Vocabulary | undefined = undefined;

  constructor(processors: readonly NamedProcessor[], vocabSize: number, maxModelLen: number) {
    this.#processors = processors;
    this.#vocabSize = vocabSize;
    this.#maxModelLen = maxModelLen;
  }

  setVocabulary(data: VocabularyData): void {
    this.#vocabulary = readVocabulary(data);
  }

  /**
   * Those that the request wants, for each of its sequences; undefined for sequences that go without.
   * @throws `request.invalid-value` where one refuses the arguments, `internal.extension-failed` where one fails.
   */
  start(request: CoreRequest): (SequenceProcessors | undefined)[] {
    const contexts = this.#contexts(request);
    for (const named of this.#processors) validate(named, request, contexts[0]!);
    return contexts.map((context) => {
      const active = this.#processors.flatMap((named) => create(named, request, context));
      return active.length === 0 ? undefined : new SequenceProcessors(active, request, this.#vocabSize);
    });
  }

  #contexts({ promptTokenIds, stopTokenIds, maxTokens, sampler, n }: CoreRequest): LogitsProcessorContext[] {
    const shared = {
      vocabSize: this.#vocabSize,
      promptTokenIds: [...promptTokenIds],
      endTokenIds: stopTokenIds,
      maxTokens: Math.min(maxTokens, this.#maxModelLen - promptTokenIds.length),
      minTokens: sampler.minTokens,
      vocabulary: this.#vocabulary,
    };
    return Array.from({ length: n }, (_, sequenceIndex) => ({ ...shared, sequenceIndex }));
  }
}

/** The processors of one sequence, and the tokens that they are shown. */
export class SequenceProcessors {
  readonly #active: readonly ActiveProcessor[];
  readonly #numPromptTokens: number;
  readonly #vocabSize: number;
  readonly #outputTokenIds: number[] = [];

  constructor(active: readonly ActiveProcessor[], request: CoreRequest, vocabSize: number) {
    this.#active = active;
    this.#numPromptTokens = request.promptTokenIds.length;
    this.#vocabSize = vocabSize;
  }

  /**
   * How the token after `tokenIds[0, numTokens)`, prompt and output, is sampled; `row` says it without processors.
   * @throws `internal.extension-failed`, naming the processor.
   */
  nextRow(row: SamplerRow, tokenIds: Int32Array, numTokens: number): SamplerRow {
    const output = this.#outputTokenIds;
    while (output.length < numTokens - this.#numPromptTokens)
      output.push(tokenIds[this.#numPromptTokens + output.length]!);
    const answers = this.#active.flatMap(({ name, processor }) => ask(name, processor, output));
    return editSamplerRow(row, answers, output, this.#vocabSize);
  }
}

function validate(
  { name, extension }: NamedProcessor,
  { extraArgs }: CoreRequest,
  context: LogitsProcessorContext,
): void {
  try {
    extension.validate?.(extraArgs, context);
  } catch (error) {
    const message = `logits processor '${name}' refuses the extra arguments: ${messageOf(error)}`;
    throw new TenonError('request.invalid-value', message, { param: 'extraArgs' });
  }
}

function create(
  { name, extension }: NamedProcessor,
  { extraArgs }: CoreRequest,
  context: LogitsProcessorContext,
): ActiveProcessor[] {
  const processor = guarded(name, () => extension.create(extraArgs, context));
  if (processor === undefined) return [];
  if (typeof processor?.next === 'function') return [{ name, processor }];
  const message = `logits processor '${name}' created ${String(processor)}; expected an object with a function next, or undefined`;
  throw new TenonError('internal.extension-failed', message);
}

function ask(name: string, processor: LogitsProcessor, outputTokenIds: readonly number[]): ProcessorAnswer[] {
  const edits: LogitsEdits | undefined = guarded(name, () => processor.next(outputTokenIds));
  return edits === undefined ? [] : [{ name, edits }];
}

function guarded<T>(name: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    const message = `logits processor '${name}' failed: ${messageOf(error)}`;
    throw new TenonError('internal.extension-failed', message, { cause: error });
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
