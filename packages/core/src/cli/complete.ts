/** `tenon complete [model]`: continues texts, each on its own. */
import type { Command } from 'commander';

import { printAnswer } from './answer-printer.js';
import { clientCommand, readClientOptions } from './client-options.js';
import { findServer } from './find-server.js';
import { answerLines } from './line-loop.js';

const defaultMaxTokens = 128;

export function completeCommand(): Command {
  const command = clientCommand('complete', 'continue this one text and exit').description(
    'Complete texts with a running server, or a model.',
  );
  return command.action(async (model: string | undefined) => {
    const options = readClientOptions(command, model);
    const server = await findServer(options);
    const answer = async (prompt: string, signal: AbortSignal): Promise<void> => {
      const body = {
        model: server.modelName,
        prompt,
        max_tokens: options.maxTokens ?? defaultMaxTokens,
        temperature: options.temperature,
        stream_options: { include_usage: true },
      };
      await printAnswer(server.client.stream('/completions', body, signal), signal, options);
    };
    try {
      if (options.quick !== undefined) await answer(options.quick, new AbortController().signal);
      else
        await answerLines({
          greeting: `${server.description}. Ctrl-C stops an answer, Ctrl-D ends.`,
          answer,
        });
    } finally {
      await server.close();
    }
  });
}
