/** --tool-call-parser: the built-in ones, and those of plugins. */
import { TenonError } from '../../errors.js';
import type { ToolParserExtension } from '../../extensions/tool-parser.js';
import { listExtensions, loadExtension } from '../../plugins/extensions.js';
import { hermesToolParser } from './hermes.js';
import { llama3JsonToolParser } from './llama3-json.js';

export interface NamedToolParser {
  readonly name: string;
  readonly extension: ToolParserExtension;
}

const builtIn: Readonly<Record<string, ToolParserExtension>> = {
  hermes: hermesToolParser,
  llama3_json: llama3JsonToolParser,
};

/** @throws `config.extension-not-found`, saying which there are, or `config.extension-invalid`. */
export async function loadToolParser(
  name: string,
  search: { readonly plugins: readonly string[]; readonly root: string },
): Promise<NamedToolParser> {
  if (Object.hasOwn(builtIn, name)) return { name, extension: builtIn[name]! };
  try {
    const extensions = listExtensions({ ...search, env: process.env });
    return { name, extension: await loadExtension('toolParsers', name, extensions) };
  } catch (error) {
    if (!(error instanceof TenonError) || error.code !== 'config.extension-not-found') throw error;
    throw new TenonError(error.code, `${error.message}; built in: ${Object.keys(builtIn).join(', ')}`);
  }
}
