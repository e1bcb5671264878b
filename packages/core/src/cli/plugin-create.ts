/** `tenon plugin create`: a new backend that builds and passes its tests as it is. */
import { relative, resolve } from 'node:path';

import { Command } from 'commander';

import { createBackend } from '../plugins/create-backend.js';

export function pluginCreateCommand(): Command {
  return new Command('create')
    .description(
      'Write a new backend: a complete one, for a simulated accelerator, to be made your own step by step.',
    )
    .argument('<name>', 'its id, such as my-npu; the package is tenon-backend-<name>')
    .option('--folder <path>', 'where to write it; default: a folder of that name')
    .action((name: string, options: { folder?: string }) => {
      const folder = resolve(options.folder ?? name);
      createBackend(name, folder);
      process.stdout.write(nextSteps(name, relative(process.cwd(), folder) || '.'));
    });
}

const nextSteps = (name: string, folder: string): string => `wrote ${folder}: package tenon-backend-${name}

next:
  cd ${folder}
  npm install
  npm run build                                  # the native addon; needs a C++20 compiler, make and cmake
  npm test                                       # serves the embedded model on the simulated device
  npm run conform                                # proves it against the contract
  npx tenon serve --plugin . --device ${name}

README.md says what each file is for.
`;
