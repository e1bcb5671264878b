/** `tenon bench <what>`: how fast a model or a server is. */
import { Command } from 'commander';

import { benchLatencyCommand } from './bench-latency.js';
import { benchServeCommand } from './bench-serve.js';
import { benchStartupCommand } from './bench-startup.js';
import { benchThroughputCommand } from './bench-throughput.js';

export function benchCommand(): Command {
  const command = new Command('bench')
    .usage('<latency|throughput|serve|startup> [options]')
    .description('Measure a model or a server, and check its answers.')
    .addCommand(benchLatencyCommand())
    .addCommand(benchThroughputCommand())
    .addCommand(benchServeCommand())
    .addCommand(benchStartupCommand());
  return command.action(() => command.help());
}
