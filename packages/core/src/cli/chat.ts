/** `tenon chat [model]`: a conversation with a running server, or with a model of its own. */
import type { Command } from 'commander';

import { printAnswer } from './answer-printer.js';
import { clientCommand, type ClientOptions, readClientOptions } from './client-options.js';
import { findServer, type Server } from './find-server.js';
import { answerLines } from './line-loop.js';

interface Message {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export function chatCommand(): Command {
  const command = clientCommand('chat', 'ask this one question and exit')
    .description('Talk to a running server, or to a model.')
    .option('--system-prompt <text>', 'what the model is told first');
  return command.action(async (model: string | undefined) => {
    const options = readClientOptions(command, model);
    const server = await findServer(options);
    try {
      await converse(server, options);
    } finally {
      await server.close();
    }
  });
}

async function converse(server: Server, options: ClientOptions): Promise<void> {
  const conversation = new Conversation(server, options);
  if (options.quick !== undefined) return conversation.ask(options.quick, new AbortController().signal);
  await answerLines({
    greeting: `${server.description}. Ctrl-C stops an answer, /clear forgets the conversation, Ctrl-D ends.`,
    answer: async (line, signal) => {
      if (line.trim() === '/clear') conversation.clear();
      else await conversation.ask(line, signal);
    },
  });
}

class Conversation {
  readonly #server: Server;
  readonly #options: ClientOptions;
  #messages: Message[] = [];

  constructor(server: Server, options: ClientOptions) {
    this.#server = server;
    this.#options = options;
    this.clear();
  }

  clear(): void {
    const { systemPrompt } = this.#options;
    this.#messages = systemPrompt === undefined ? [] : [{ role: 'system', content: systemPrompt }];
  }

  /** Question and answer are remembered, also an answer that was stopped; a question that failed is not. */
  async ask(question: string, signal: AbortSignal): Promise<void> {
    const { maxTokens, temperature } = this.#options;
    const messages: Message[] = [...this.#messages, { role: 'user', content: question }];
    const body = {
      model: this.#server.modelName,
      messages,
      max_tokens: maxTokens,
      temperature,
      stream_options: { include_usage: true },
    };
    const chunks = this.#server.client.stream('/chat/completions', body, signal);
    const answer = await printAnswer(chunks, signal, this.#options);
    this.#messages = [...messages, { role: 'assistant', content: answer }];
  }
}
