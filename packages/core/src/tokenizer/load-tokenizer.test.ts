import { describe, expect, it } from 'vitest';
import { TenonError } from '../errors.js';
import type { TokenizerSource } from '../weights/checkpoint.js';
import { loadTokenizer } from './load-tokenizer.js';

const model = { type: 'BPE', vocab: { a: 0, b: 1, ab: 2, '<s>': 3 }, merges: ['a b'] };
const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
const file = {
  model,
  decoder: { type: 'ByteLevel' },
  added_tokens: [{ id: 4, content: '</s>', ...special }],
};

function source(tokenizerJson: unknown, tokenizerConfig = {}, chatTemplate?: string): TokenizerSource {
  return { kind: 'huggingface', tokenizerJson: tokenizerJson as object, tokenizerConfig, chatTemplate };
}

async function errorOf(tokenizerJson: unknown, tokenizerConfig = {}): Promise<TenonError> {
  const error: unknown = await loadTokenizer(source(tokenizerJson, tokenizerConfig)).catch(
    (caught: unknown) => caught,
  );
  if (error instanceof TenonError) return error;
  throw new Error(`expected a TenonError, got ${String(error)}`);
}

describe('loading a tokenizer', () => {
  it('gives none where the checkpoint has none', async () => {
    expect(await loadTokenizer({ kind: 'none' })).toBeUndefined();
  });

  it('takes named tokens as strings or as objects', async () => {
    const config = {
      bos_token: '<s>',
      eos_token: { content: '</s>', __type: 'AddedToken' },
      pad_token: '<nowhere>',
    };
    const tokenizer = (await loadTokenizer(source(file, config)))!;
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId]).toEqual([3, 4]);
    expect(tokenizer.encode('<s>ab</s>')).toEqual([3, 2, 4]);
    expect([3, 4, 2].map((id) => tokenizer.isSpecial(id))).toEqual([true, true, false]);
    await tokenizer.close();
  });

  it('prefers chat_template.jinja, keeps the named templates, and yields to the option', async () => {
    const config = {
      chat_template: [
        { name: 'default', template: 'configured' },
        { name: 'tool_use', template: 'tools' },
      ],
    };
    const messages = [{ role: 'user', content: 'x' }];
    const withFile = (await loadTokenizer(source(file, config, 'from file')))!;
    expect(withFile.chatTemplate).toBe('from file');
    expect(withFile.applyChatTemplate(messages, { tools: [] })).toBe('tools');
    const overridden = (await loadTokenizer(source(file, config), { chatTemplate: 'option' }))!;
    expect(overridden.applyChatTemplate(messages, { tools: [] })).toBe('option');
  });

  it.each([
    ['no object', [], 'tokenizer.json: expected a JSON object'],
    ['no model', {}, 'tokenizer.json model: missing'],
    ['an unknown model', { model: { type: 'Magic' } }, 'Unknown TokenizerModel type: Magic'],
    ['a vocabulary that is a list', { model: { ...model, vocab: [] } }, 'model.vocab: expected an object'],
    ['an id that is no integer', { model: { ...model, vocab: { a: 'x' } } }, `'a' has the id "x"`],
    ['no merges', { model: { ...model, merges: undefined } }, 'model.merges: expected an array'],
    [
      'a merge that is no pair',
      { model: { ...model, merges: ['a b', 'ab'] } },
      'entry 1 is not a pair: "ab"',
    ],
    ['an added token without id', { ...file, added_tokens: [{ content: 'x' }] }, 'lacks its id or content'],
    [
      'a single_word token',
      { ...file, added_tokens: [{ id: 9, content: 'x', single_word: true }] },
      'single_word',
    ],
    [
      'an unknown splitter',
      { ...file, pre_tokenizer: { type: 'Magic' } },
      'Unknown PreTokenizer type: Magic',
    ],
    ['an unknown normalizer', { ...file, normalizer: { type: 'Magic' } }, 'Unknown Normalizer type: Magic'],
    ['an unknown decoder', { ...file, decoder: { type: 'Magic' } }, 'Unknown Decoder type: Magic'],
    ['an unknown post-processor', { ...file, post_processor: { type: 'Magic' } }, "unknown type 'Magic'"],
    [
      'a broken regex',
      { ...file, pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } },
      'Invalid regular expression',
    ],
    [
      'a template with an unknown token',
      { ...file, post_processor: { type: 'TemplateProcessing', single: [{ SpecialToken: { id: '<x>' } }] } },
      "no ids for '<x>'",
    ],
  ])('refuses %s', async (_, tokenizerJson, message) => {
    const error = await errorOf(tokenizerJson);
    expect(error.code).toBe('config.tokenizer-invalid');
    expect(error.message).toContain(message);
  });

  it('refuses chat templates of a wrong form', async () => {
    expect((await errorOf(file, { chat_template: [{ name: 'default' }] })).message).toContain(
      'chat_template',
    );
  });
});
