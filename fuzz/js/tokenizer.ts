/** tokenizer.json and tokenizer_config.json, edited from small real ones; what opens encodes and decodes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { TextTokenizer } from '../../packages/core/src/tokenizer/text-tokenizer.js';
import { tokenizerDefinition } from '../../packages/core/src/tokenizer/tokenizer-source.js';
import { isJsonObject } from '../../packages/core/src/weights/fields.js';
import { ByteSource } from './byte-source.js';
import { editedJson } from './edited-json.js';
import { require, runCase } from './oracle.js';

const names = ['gpt2-like', 'llama-like', 'metaspace', 'qwen-like', 'split-like', 'unigram', 'word-piece'];
const fixtures = names.map((name) => smallFixture(name));

interface Files {
  readonly tokenizerJson: unknown;
  readonly tokenizerConfig: unknown;
}

interface Fixture {
  readonly tokenizerJson: { model: { vocab: unknown; merges?: readonly (string | readonly string[])[] } };
  readonly tokenizerConfig?: object;
}

const numTokens = 300;

/** The fixture with its first tokens alone, so that a case is fast. */
function smallFixture(name: string): Files {
  const file = join(process.env['FUZZ_FIXTURES']!, 'tokenizers', `${name}.json`);
  const { tokenizerJson, tokenizerConfig } = JSON.parse(readFileSync(file, 'utf8')) as Fixture;
  const { model } = tokenizerJson;
  if (Array.isArray(model.vocab)) model.vocab = model.vocab.slice(0, numTokens);
  else {
    const vocab = Object.fromEntries(Object.entries(model.vocab as object).slice(0, numTokens));
    model.vocab = vocab;
    model.merges = model.merges?.filter((merge) => {
      const pair = typeof merge === 'string' ? merge.split(' ') : merge;
      return [...pair, pair.join('')].every((piece) => Object.hasOwn(vocab, piece));
    });
  }
  return { tokenizerJson, tokenizerConfig: tokenizerConfig ?? {} };
}

export function fuzz(data: Buffer): void {
  const source = new ByteSource(data);
  const files = editedJson(source.pick(fixtures), source);
  if (!isJsonObject(files)) return;
  const text = `Hello, world! 12 ${Buffer.from(source.rest()).toString()}`;
  runCase(() => {
    const { tokenizerJson, tokenizerConfig } = files as {
      tokenizerJson: object;
      tokenizerConfig: Record<string, unknown>;
    };
    if (!isJsonObject(tokenizerJson) || !isJsonObject(tokenizerConfig)) return;
    const definition = tokenizerDefinition({
      kind: 'huggingface',
      tokenizerJson,
      tokenizerConfig,
      chatTemplate: undefined,
    });
    const tokenizer = new TextTokenizer(definition!);
    const ids = tokenizer.encode(text);
    require(ids.every((id) => Number.isInteger(id) && id >= 0), `encoded to ${ids.slice(0, 20).join()}`);
    const decoded = tokenizer.decode(ids);
    const stream = tokenizer.incremental({ skipSpecialTokens: false });
    require(ids.map((id) => stream.push([id])).join('') + stream.flush() ===
      decoded, 'streaming decodes otherwise');
  });
}
