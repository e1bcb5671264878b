/** Reads lines from a terminal or a pipe and answers each. Ctrl-C stops the answer; twice at the prompt, or Ctrl-D, ends. */
import { createInterface } from 'node:readline';

import { asTenonError } from '../errors.js';

export interface LineLoop {
  /** Shown on a terminal. */
  readonly greeting: string;
  /** Throws what went wrong; on a terminal that is told, and the loop goes on. */
  answer(line: string, signal: AbortSignal): Promise<void>;
}

export interface Terminal {
  readonly input: NodeJS.ReadableStream;
  readonly output: NodeJS.WritableStream;
  /** False: a pipe, without prompts; the first error ends the loop. */
  readonly isInteractive: boolean;
}

const standardTerminal = (): Terminal => ({
  input: process.stdin,
  output: process.stdout,
  isInteractive: process.stdin.isTTY && process.stdout.isTTY,
});

export async function answerLines(loop: LineLoop, terminal: Terminal = standardTerminal()): Promise<void> {
  const { input, output, isInteractive } = terminal;
  const lines = createInterface({
    input,
    terminal: isInteractive,
    output: isInteractive ? output : undefined,
  });
  let answering: AbortController | undefined;
  let isEnding = false;
  let isClosed = false;
  const ask = (): void => {
    if (isInteractive && !isClosed) lines.prompt();
  };
  lines.on('close', () => (isClosed = true));
  lines.on('SIGINT', () => {
    if (answering !== undefined) return answering.abort();
    if (isEnding) return lines.close();
    isEnding = true;
    output.write('\n(Ctrl-C again to exit)\n');
    ask();
  });
  if (isInteractive) output.write(`${loop.greeting}\n`);
  ask();
  for await (const line of lines) {
    isEnding = false;
    if (line.trim() !== '') {
      answering = new AbortController();
      await answerOne(loop, line, answering.signal, terminal);
      answering = undefined;
    }
    ask();
  }
  if (isInteractive) output.write('\n');
}

async function answerOne(
  loop: LineLoop,
  line: string,
  signal: AbortSignal,
  terminal: Terminal,
): Promise<void> {
  try {
    await loop.answer(line, signal);
  } catch (thrown) {
    if (!terminal.isInteractive) throw thrown;
    const error = asTenonError(thrown);
    terminal.output.write(`error [${error.code}]: ${error.message}\n`);
  }
}
