/** The tokenizer files of a model folder. */
import { join } from 'node:path';
import type { TokenizerSource } from './checkpoint.js';
import { isJsonObject, type JsonObject } from './fields.js';
import { tryReadJsonObject, tryReadText } from './json-file.js';

const code = 'config.tokenizer-invalid';

export async function readTokenizerSource(folder: string): Promise<TokenizerSource> {
  const tokenizerJson = await tryReadJsonObject(join(folder, 'tokenizer.json'), code);
  if (tokenizerJson === undefined) return { kind: 'none' };
  const specialTokens = await tryReadJsonObject(join(folder, 'special_tokens_map.json'), code);
  const own = await tryReadJsonObject(join(folder, 'tokenizer_config.json'), code);
  const tokenizerConfig = { ...specialTokens, ...own };
  const chatTemplate = await readChatTemplate(folder, tokenizerConfig);
  return { kind: 'huggingface', tokenizerJson, tokenizerConfig, chatTemplate };
}

/** chat_template.jinja, else tokenizer_config.json's chat_template, else chat_template.json, as transformers looks. */
async function readChatTemplate(folder: string, tokenizerConfig: JsonObject): Promise<string | undefined> {
  return (
    (await tryReadText(join(folder, 'chat_template.jinja'), code)) ??
    defaultTemplate(tokenizerConfig['chat_template']) ??
    defaultTemplate((await tryReadJsonObject(join(folder, 'chat_template.json'), code))?.['chat_template'])
  );
}

/** A template, or the one named default of a list of { name, template }. */
function defaultTemplate(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  const entries = Array.isArray(value) ? value.filter(isJsonObject) : [];
  const template = (entries.find((entry) => entry['name'] === 'default') ?? entries[0])?.['template'];
  return typeof template === 'string' ? template : undefined;
}
