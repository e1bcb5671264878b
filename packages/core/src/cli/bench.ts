/** `tenon bench <what>`: how fast a model or a server is. */
import { Command } from 'commander';

import { TenonError } from '../errors.js';
import { benchLatencyCommand } from './bench-latency.js';
import { benchServeCommand } from './bench-serve.js';
import { benchStartupCommand } from './bench-startup.js';
import { benchThroughputCommand } from './bench-throughput.js';

export function benchCommand(): Command {
  const benchmarks = [
    benchLatencyCommand(),
    benchThroughputCommand(),
    benchServeCommand(),
    benchStartupCommand(),
  ];
  const names = benchmarks.map((benchmark) => benchmark.name());
  const command = new Command('bench')
    .usage(`<${names.join('|')}> [options]`)
    .description('Measure a model or a server, and check its answers.')
    .argument('[what]');
  for (const benchmark of benchmarks) command.addCommand(benchmark);
  return command.action((what: string | undefined) => {
    if (what === undefined) command.help();
    throw new TenonError('config.invalid-option', `no benchmark '${what}'; expected ${names.join(', ')}`);
  });
}
