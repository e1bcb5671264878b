/** Whether a chat request's answer may call tools. */
import { TenonError } from '../../errors.js';
import type { Tool } from '../../extensions/tool-parser.js';
import type { SamplingParams } from '../../sampling/sampling-params.js';
import type { ChatCompletionRequest } from '../schemas/chat-completions.js';
import type { ServerContext } from '../server-context.js';
import type { NamedToolParser } from './tool-parsers.js';

export interface ToolCalling {
  readonly parser: NamedToolParser;
  readonly tools: readonly Tool[];
  /** False: the first call of an answer is its only one. */
  readonly parallel: boolean;
}

type ToolFields = Pick<ChatCompletionRequest, 'tools' | 'tool_choice' | 'parallel_tool_calls'>;

/** Undefined where answers are text. @throws a 400 for what the server was not started for, or cannot do. */
export function toolCallingOf(body: ToolFields, context: ServerContext): ToolCalling | undefined {
  const { tools, tool_choice: choice = tools === undefined ? 'none' : 'auto' } = body;
  if (choice === 'none') return undefined;
  if (tools === undefined) throw refused('request.invalid-value', "'tool_choice' needs 'tools'");
  if (choice !== 'auto') {
    const shown = typeof choice === 'string' ? `"${choice}"` : 'with a function';
    const reason = 'a call cannot be enforced before structured output is supported; use "auto"';
    throw refused('request.unsupported-parameter', `'tool_choice' ${shown} is not supported: ${reason}`);
  }
  checkStrict(tools);
  const { toolParser, options } = context;
  if (!options.enableAutoToolChoice || toolParser === undefined) {
    const flags = '--enable-auto-tool-choice and --tool-call-parser';
    const message = `'tools' need a server that runs with ${flags}, or 'tool_choice' "none"`;
    const param = body.tool_choice === undefined ? 'tools' : 'tool_choice';
    throw new TenonError('request.invalid-value', message, { param });
  }
  return { parser: toolParser, tools, parallel: body.parallel_tool_calls ?? true };
}

/** Parsers that find calls by special tokens see them. */
export function samplingFor(calling: ToolCalling | undefined, params: SamplingParams): SamplingParams {
  return calling?.parser.extension.keepsSpecialTokens === true
    ? { ...params, skipSpecialTokens: false }
    : params;
}

/** The tools that the template shows. */
export function shownTools(
  body: { readonly tools?: readonly Tool[]; readonly tool_choice?: unknown },
  { options }: ServerContext,
): readonly Tool[] | undefined {
  const isExcluded = body.tool_choice === 'none' && options.excludeToolsWhenToolChoiceNone;
  return isExcluded ? undefined : body.tools;
}

function checkStrict(tools: NonNullable<ToolFields['tools']>): void {
  const strict = tools.findIndex((tool) => tool.function.strict === true);
  if (strict === -1) return;
  const param = `tools.${strict}.function.strict`;
  const message = `'${param}' is not supported: arguments cannot be enforced before structured output is; leave it out`;
  throw new TenonError('request.unsupported-parameter', message, { param });
}

function refused(
  code: 'request.invalid-value' | 'request.unsupported-parameter',
  message: string,
): TenonError {
  return new TenonError(code, message, { param: 'tool_choice' });
}
