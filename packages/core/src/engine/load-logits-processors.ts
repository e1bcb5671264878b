/** `logits-processors` by their names, from the packages that declare them. */
import {
  listExtensions,
  findExtension,
  importExtension,
  invalid,
  type Extension,
} from '../plugins/extensions.js';
import type { NamedProcessor } from './logits-processors.js';

export interface ProcessorChoice {
  readonly names: readonly string[];
  /** Packages or folders named by the user. */
  readonly plugins: readonly string[];
  /** Where the search for packages begins. */
  readonly root: string;
}

/** @throws `config.extension-not-found` or `config.extension-invalid`. */
export async function loadLogitsProcessors({
  names,
  plugins,
  root,
}: ProcessorChoice): Promise<NamedProcessor[]> {
  if (names.length === 0) return [];
  const extensions = listExtensions({ plugins, root, env: process.env });
  return Promise.all([...new Set(names)].map((name) => load(name, extensions)));
}

async function load(name: string, extensions: readonly Extension[]): Promise<NamedProcessor> {
  const found = findExtension('logitsProcessors', name, extensions) as Extension & {
    kind: 'logitsProcessors';
  };
  const extension = await importExtension(found);
  const args: unknown = extension.args;
  if (Array.isArray(args) && args.every((arg) => typeof arg === 'string')) return { name, extension };
  throw invalid(
    found,
    `args is ${JSON.stringify(args)}; expected a list of the names of the arguments that it reads`,
  );
}
