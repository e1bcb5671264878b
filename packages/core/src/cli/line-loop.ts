/** Reads lines from a terminal or a pipe and answers each. Ctrl-C stops the answer; twice at the prompt, or Ctrl-D, ends. */
import { createInterface } from 'node:readline';

import { asTenonError } from '../errors.js';

export interface LineLoop {
  /** Shown on a terminal. */
  readonly greeting: string;
  /** Throws what went wrong; on a terminal that is told, and the loop goes on. */
  answer(line: string, signal: AbortSignal): Promise<void>;
}

export async function answerLines({ greeting, answer }: LineLoop): Promise<void> {
  const isTerminal = process.stdin.isTTY && process.stdout.isTTY;
  const lines = createInterface({
    input: process.stdin,
    output: isTerminal ? process.stdout : undefined,
    prompt: '> ',
  });
  let answering: AbortController | undefined;
  let isEnding = false;
  lines.on('SIGINT', () => {
    if (answering !== undefined) return answering.abort();
    if (isEnding) return lines.close();
    isEnding = true;
    process.stdout.write('\n(Ctrl-C again to exit)\n');
    lines.prompt();
  });
  if (isTerminal) process.stdout.write(`${greeting}\n`);
  if (isTerminal) lines.prompt();
  for await (const line of lines) {
    isEnding = false;
    if (line.trim() !== '') {
      answering = new AbortController();
      await answer(line, answering.signal).catch((error: unknown) => report(error, isTerminal));
      answering = undefined;
    }
    if (isTerminal) lines.prompt();
  }
  if (isTerminal) process.stdout.write('\n');
}

function report(thrown: unknown, isTerminal: boolean): void {
  const error = asTenonError(thrown);
  if (!isTerminal) throw error;
  process.stderr.write(`error [${error.code}]: ${error.message}\n`);
}
