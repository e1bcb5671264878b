/** `tenon plugin pack`: the tarballs that a backend is published as. */
import { statSync } from 'node:fs';
import { relative, resolve } from 'node:path';

import { Command } from 'commander';

import { packBackend } from '../plugins/pack-backend.js';

export function pluginPackCommand(): Command {
  return new Command('pack')
    .description(
      "Write a backend's tarballs, with the built addon as a package of its own, and name them in publishing order.",
    )
    .argument('[folder]', "the backend's folder", '.')
    .option('--out <folder>', "where the tarballs go; default: 'packed' in the backend's folder")
    .action((folder: string, { out }: { out?: string }) => {
      const tarballs = packBackend(resolve(folder), resolve(out ?? `${folder}/packed`));
      for (const path of tarballs)
        process.stdout.write(
          `${relative(process.cwd(), path)}  ${(statSync(path).size / 1e6).toFixed(2)} MB\n`,
        );
    });
}
