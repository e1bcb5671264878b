/** `tenon explain [model]`: how a model runs on a device. */
import { Command } from 'commander';

import { explainEngine } from './load-engine.js';
import { optionTable } from './option-table.js';
import { addOptions, readOptions } from './parse-options.js';

export function explainCommand(): Command {
  const command = new Command('explain')
    .usage('[model] [options]')
    .description('Show how a model runs: its ops, the kernels behind them, their bytes, and why.')
    .argument('[model]', 'folder, GGUF file, hub id or <scheme>://…; by default the embedded model')
    .option('--config <file>', 'YAML file of these options');
  const rows = optionTable.filter((row) => row.owner === 'engine');
  return addOptions(command, rows).action(async (model: string | undefined) => {
    const { engine } = readOptions(command, process.env);
    const explanation = await explainEngine(model, engine, (level, message) => {
      if (level === 'warn') process.stderr.write(`${message}\n`);
    });
    process.stdout.write(`${explanation.trimEnd()}\n`);
  });
}
