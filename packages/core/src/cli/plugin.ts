/** `tenon plugin <what>`: for those who write backends and other plugins. */
import { Command } from 'commander';

import { TenonError } from '../errors.js';
import { pluginCreateCommand } from './plugin-create.js';
import { pluginPackCommand } from './plugin-pack.js';

export function pluginCommand(): Command {
  const actions = [pluginCreateCommand(), pluginPackCommand()];
  const names = actions.map((action) => action.name());
  const command = new Command('plugin')
    .usage(`<${names.join('|')}> [options]`)
    .description('Make and publish backends and other plugins.')
    .argument('[what]');
  for (const action of actions) command.addCommand(action);
  return command.action((what: string | undefined) => {
    if (what === undefined) command.help();
    throw new TenonError('config.invalid-option', `no action '${what}'; expected ${names.join(', ')}`);
  });
}
