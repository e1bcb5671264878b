/**
 * What a chat template may take. Templates come with models and, where the server trusts them, with requests; they run on
 * the thread that serves everybody. V8's watchdog bounds the time, even within a regex or a sort; what a template produces
 * bounds the memory.
 */
import { createContext, Script } from 'node:vm';
import { Interpreter } from '@huggingface/jinja';
import { TenonError } from '../errors.js';

/** All messages of a 1 M token context render in less. */
const maxTemplateMs = 1000;
/** UTF-16 units of text and elements of lists that one rendering may make, intermediate values included. */
const maxProduced = 2 ** 28;
/** UTF-16 units of one text, elements of one list. */
const maxValueSize = 2 ** 24;
/** As in Jinja's sandbox, where transformers runs templates. */
export const maxRange = 100_000;

const job: { run: () => unknown } = { run: () => undefined };
const context = createContext(job);
const script = new Script('run()');

/** What `work` returns, or the error where it takes longer than `timeoutMs`. It must not be asynchronous. */
export function withinTime<T>(work: () => T, timeoutMs = maxTemplateMs): T {
  job.run = work;
  try {
    return script.runInContext(context, { timeout: timeoutMs }) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    throw tooMuch(`took more than ${timeoutMs} ms and was stopped`);
  }
}

/** What we use of the library's interpreter (whose own types don't resolve under NodeNext). */
interface LibraryInterpreter {
  run(program: unknown): { readonly value: unknown };
  evaluate(node: { readonly type: string } | undefined, environment: unknown): { readonly value: unknown };
}
const LibraryInterpreter = Interpreter as unknown as new (environment: unknown) => LibraryInterpreter;

/** Nodes whose value is not new. */
const readingNodes: ReadonlySet<string> = new Set([
  'Identifier',
  'MemberExpression',
  'StringLiteral',
  'IntegerLiteral',
]);

/** Refuses values that are too large, one by one and together. */
export class BoundedInterpreter extends LibraryInterpreter {
  #produced = 0;

  override evaluate(
    ...[node, environment]: Parameters<LibraryInterpreter['evaluate']>
  ): ReturnType<LibraryInterpreter['evaluate']> {
    const result = super.evaluate(node, environment);
    if (node !== undefined && !readingNodes.has(node.type)) this.#count(sizeOf(result.value));
    return result;
  }

  #count(size: number): void {
    if (size > maxValueSize) throw tooMuch(`made a value of ${size} characters or elements`);
    this.#produced += size;
    if (this.#produced > maxProduced)
      throw tooMuch(`made values of more than ${maxProduced} characters and elements`);
  }
}

function sizeOf(value: unknown): number {
  return typeof value === 'string' || Array.isArray(value) ? value.length : 0;
}

export function tooMuch(what: string): TenonError {
  return new TenonError('request.chat-template', `the chat template ${what}; shorten it or the messages`, {
    param: 'messages',
  });
}
