/** Options of `chat` and `complete`. */
import { Command } from 'commander';

import type { FindServerOptions } from './find-server.js';
import { optionTable } from './option-table.js';
import { parseInteger } from './option-values.js';
import { addOptions, readOptions } from './parse-options.js';

export interface ClientOptions extends FindServerOptions {
  readonly maxTokens: number | undefined;
  readonly temperature: number | undefined;
  readonly stats: boolean;
  /** One message or prompt, and no more. */
  readonly quick: string | undefined;
  readonly systemPrompt: string | undefined;
}

export function clientCommand(name: string, quickHelp: string): Command {
  const command = new Command(name)
    .usage('[model] [options]')
    .argument('[model]', 'a model to run if no server does: folder, GGUF file or hub id')
    .option('--url <url>', 'a running server (default: http://127.0.0.1:8000/v1 if one answers)')
    .option('--model-name <name>', "one of the server's models (default: its first)")
    .option('--api-key <key>', "the server's key (default: TENON_API_KEY, OPENAI_API_KEY)")
    .option('-q, --quick <text>', quickHelp)
    .option('--max-tokens <n>', 'tokens of an answer at most', (text) => parseInteger(text, '--max-tokens'))
    .option('--temperature <n>', '0: the most likely answer', Number)
    .option('--stats', 'tokens and speed after each answer', false);
  return addOptions(
    command,
    optionTable.filter((row) => row.owner === 'engine'),
  );
}

export function readClientOptions(command: Command, model: string | undefined): ClientOptions {
  const options = command.opts<Omit<ClientOptions, 'model' | 'engine'>>();
  const { TENON_API_KEY: tenonKey, OPENAI_API_KEY: openaiKey } = process.env;
  return {
    model,
    url: options.url,
    modelName: options.modelName,
    apiKey: options.apiKey ?? tenonKey ?? openaiKey,
    maxTokens: options.maxTokens,
    temperature: options.temperature,
    stats: options.stats,
    quick: options.quick,
    systemPrompt: options.systemPrompt,
    engine: readOptions(command, {}).engine,
  };
}
