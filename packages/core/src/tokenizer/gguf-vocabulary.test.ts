import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TenonError } from '../errors.js';
import { ggufPreTokenizerNames } from './gguf-pre-tokenizers.js';
import { ggufDefinition } from './gguf-vocabulary.js';
import { TextTokenizer } from './text-tokenizer.js';
import type { JsonObject } from './tokenizer-definition.js';

interface SentencePieceFixture {
  readonly metadata: JsonObject;
  readonly encodings: readonly (readonly [string, string])[];
  readonly decodings: readonly (readonly [string, string])[];
}

interface PreTokenizerFixture {
  readonly texts: readonly string[];
  /** llama.cpp's ids of each text, for the names that agree on all of them. */
  readonly results: readonly { readonly names: readonly string[]; readonly ids: readonly string[] }[];
}

function readFixture(name: string): unknown {
  return JSON.parse(
    readFileSync(new URL(`../../tests/fixtures/tokenizers/${name}.json`, import.meta.url), 'utf8'),
  );
}

/** The byte-level vocabulary that gguf-pre-tokenizers.json was made with. */
const { tokenizerJson } = readFixture('split-like') as {
  readonly tokenizerJson: {
    readonly model: { readonly vocab: Record<string, number>; readonly merges: [string, string][] };
  };
};

function byteLevelMetadata(pre: string | undefined): Record<string, unknown> {
  const tokens = Object.entries(tokenizerJson.model.vocab)
    .toSorted((a, b) => a[1] - b[1])
    .map(([token]) => token);
  return {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': pre,
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': tokens.map((token) => (token.startsWith('<|') ? 3 : 1)),
    'tokenizer.ggml.merges': tokenizerJson.model.merges.map((merge) => merge.join(' ')),
    'tokenizer.ggml.bos_token_id': 0,
    'tokenizer.ggml.eos_token_id': 1,
  };
}

const sentencePiece = readFixture('sentencepiece-gguf') as SentencePieceFixture;

function parseIds(text: string): number[] {
  return text.split(' ').map(Number);
}

describe('byte-level BPE from GGUF', () => {
  const { texts, results } = readFixture('gguf-pre-tokenizers') as PreTokenizerFixture;
  // llama.cpp leaves combining marks out of o200k's words; the model's own regex, which we use, has them.
  const leavesMarksOut = new Set(['gpt-4o', 'llama4', 'kanana2', 'minimax-m2', 'tekken']);

  it('covers every splitter in the fixture', () => {
    expect(results.flatMap(({ names }) => names).toSorted()).toEqual(ggufPreTokenizerNames());
  });

  it.each(results.flatMap(({ names, ids }) => names.map((name) => [name, ids] as const)))(
    'splits as llama.cpp for %s',
    (name, ids) => {
      const tokenizer = new TextTokenizer(ggufDefinition(byteLevelMetadata(name)));
      texts.forEach((text, i) => {
        if (leavesMarksOut.has(name) && /\p{M}/u.test(text)) return;
        expect([text, tokenizer.encode(text, { addSpecialTokens: false })]).toEqual([
          text,
          parseIds(ids[i]!),
        ]);
      });
    },
  );

  it('refuses an unknown or missing splitter by name', () => {
    expect(errorOf(byteLevelMetadata('klingon')).message).toContain(
      "tokenizer.ggml.pre: 'klingon' is unknown",
    );
    expect(errorOf(byteLevelMetadata(undefined)).message).toContain('tokenizer.ggml.pre: missing');
  });

  it('adds the tokens that the metadata asks for', () => {
    const metadata = byteLevelMetadata('qwen2');
    const [a] = new TextTokenizer(ggufDefinition(metadata)).encode('a');
    const withBoth = {
      ...metadata,
      'tokenizer.ggml.add_bos_token': true,
      'tokenizer.ggml.add_eos_token': true,
    };
    expect(new TextTokenizer(ggufDefinition(withBoth)).encode('a')).toEqual([0, a, 1]);
    expect(new TextTokenizer(ggufDefinition(byteLevelMetadata('llama-bpe'))).encode('a')).toEqual([0, a]);
  });

  it('finds control tokens in the text and drops them from the answer', () => {
    const tokenizer = new TextTokenizer(ggufDefinition(byteLevelMetadata('smollm')));
    const ids = tokenizer.encode('<|im_start|>a<|end|>');
    expect([ids[0], ids[2]]).toEqual([1, 0]);
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe('a');
    expect(tokenizer.decode(ids)).toBe('<|im_start|>a<|end|>');
  });
});

describe('SentencePiece from GGUF', () => {
  const tokenizer = new TextTokenizer(ggufDefinition(sentencePiece.metadata));

  it('encodes as SentencePiece does', () => {
    for (const [text, ids] of sentencePiece.encodings) {
      expect([text, tokenizer.encode(text, { addSpecialTokens: false })]).toEqual([text, parseIds(ids)]);
    }
  });

  it('decodes as SentencePiece does, broken byte sequences too', () => {
    for (const [ids, text] of sentencePiece.decodings)
      expect([ids, tokenizer.decode(parseIds(ids))]).toEqual([ids, text]);
  });

  it('starts with the begin token and a space unless told otherwise', () => {
    const [text, ids] = sentencePiece.encodings[0]!;
    expect(tokenizer.encode(text)).toEqual([1, ...parseIds(ids)]);
    const bare = { 'tokenizer.ggml.add_bos_token': false, 'tokenizer.ggml.add_space_prefix': false };
    const without = new TextTokenizer(ggufDefinition({ ...sentencePiece.metadata, ...bare }));
    expect(without.encode(` ${text}`)).toEqual(parseIds(ids));
    expect(without.decode(without.encode(text))).toBe(text);
  });
});

describe('GGUF tokenizer metadata', () => {
  it('keeps chat templates by name and shows them the special tokens', () => {
    const definition = ggufDefinition({
      ...byteLevelMetadata('qwen2'),
      'tokenizer.chat_template': '{{ bos_token }}{{ messages[0].content }}',
      'tokenizer.chat_template.tool_use': '{{ tools | length }} tools',
    });
    const tokenizer = new TextTokenizer(definition);
    const messages = [{ role: 'user', content: 'hi' }];
    expect(tokenizer.applyChatTemplate(messages)).toBe('<|end|>hi');
    expect(tokenizer.applyChatTemplate(messages, { tools: [{}] })).toBe('1 tools');
  });

  it.each([
    ['a model that is not supported', { 'tokenizer.ggml.model': 'rwkv' }, "'rwkv' is not supported"],
    ['no model', { 'tokenizer.ggml.model': undefined }, 'tokenizer.ggml.model'],
    ['no tokens', { 'tokenizer.ggml.tokens': [] }, 'tokenizer.ggml.tokens'],
    ['tokens of a wrong type', { 'tokenizer.ggml.tokens': [1, 2] }, 'tokenizer.ggml.tokens'],
    ['too few token types', { 'tokenizer.ggml.token_type': [1] }, '1 types for 600 tokens'],
    ['no merges', { 'tokenizer.ggml.merges': undefined }, 'tokenizer.ggml.merges'],
    ['a merge of one part', { 'tokenizer.ggml.merges': ['ab'] }, "entry 0 is not a pair: 'ab'"],
    [
      'an end token outside of the vocabulary',
      { 'tokenizer.ggml.eos_token_id': 600 },
      '600 lies outside of the 600',
    ],
    ['a flag that is a number', { 'tokenizer.ggml.add_bos_token': 1 }, 'expected true or false'],
  ])('refuses %s', (_, change, message) => {
    const error = errorOf({ ...byteLevelMetadata('qwen2'), ...change });
    expect(error.code).toBe('config.tokenizer-invalid');
    expect(error.message).toContain(message);
  });

  it('refuses SentencePiece scores that do not match the tokens', () => {
    const error = errorOf({ ...sentencePiece.metadata, 'tokenizer.ggml.scores': [0.5] });
    expect(error.message).toContain('1 scores for');
  });
});

function errorOf(metadata: JsonObject): TenonError {
  try {
    ggufDefinition(metadata);
  } catch (error) {
    if (error instanceof TenonError) return error;
    throw error;
  }
  throw new Error('no error was thrown');
}
