import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { huggingFaceDefinition } from './huggingface-definition.js';
import { TextTokenizer } from './text-tokenizer.js';
import type { JsonObject } from './tokenizer-definition.js';

/** What transformers answered; see make-tokenizers.py beside the fixtures. */
interface Fixture {
  readonly tokenizerConfig: JsonObject;
  /** Absent for the embedded model, whose file is in its own package. */
  readonly tokenizerJson?: object;
  /** Text, its ids, the special ids before and after them. */
  readonly encodings: readonly (readonly [string, string, string, string])[];
  /** Ids, their text, their text without special tokens. */
  readonly decodings: readonly (readonly [string, string, string])[];
}

const fixtures = new URL('../../tests/fixtures/tokenizers/', import.meta.url);
const storiesModel = new URL('../../../model-stories/model/tokenizer.json', import.meta.url);
const kinds = [
  'stories',
  'llama-like',
  'metaspace',
  'qwen-like',
  'gpt2-like',
  'split-like',
  'unigram',
  'word-piece',
] as const;

const opened = new Map(kinds.map((kind) => [kind, open(kind)]));

function open(kind: string): { fixture: Fixture; tokenizer: TextTokenizer } {
  const fixture = readJson(new URL(`${kind}.json`, fixtures)) as Fixture;
  const tokenizerJson = fixture.tokenizerJson ?? readJson(storiesModel);
  const tokenizer = new TextTokenizer(
    huggingFaceDefinition(tokenizerJson, fixture.tokenizerConfig, undefined),
  );
  return { fixture, tokenizer };
}

function readJson(url: URL): unknown {
  return JSON.parse(readFileSync(url, 'utf8'));
}

function parseIds(text: string): number[] {
  return text === '' ? [] : text.split(' ').map(Number);
}

describe.each(kinds)('the %s tokenizer', (kind) => {
  const { fixture, tokenizer } = opened.get(kind)!;

  it('encodes as transformers does', () => {
    for (const [text, ids, prefix, suffix] of fixture.encodings) {
      expect([text, tokenizer.encode(text, { addSpecialTokens: false })]).toEqual([text, parseIds(ids)]);
      const all = [...parseIds(prefix), ...parseIds(ids), ...parseIds(suffix)];
      expect([text, tokenizer.encode(text)]).toEqual([text, all]);
    }
  });

  it('decodes as transformers does', () => {
    for (const [ids, text, textWithoutSpecials] of fixture.decodings) {
      if (endsInBrokenByteRun(tokenizer, parseIds(ids))) continue;
      expect([ids, tokenizer.decode(parseIds(ids))]).toEqual([ids, text]);
      expect([ids, tokenizer.decode(parseIds(ids), { skipSpecialTokens: true })]).toEqual([
        ids,
        textWithoutSpecials,
      ]);
    }
  });

  it('streams any token sequence to the text that decode gives for all of it', () => {
    const tokenId = fc.integer({ min: 0, max: tokenizer.vocabSize + 2 });
    const bytes = byteTokens(tokenizer);
    const anyToken = bytes.length === 0 ? tokenId : fc.oneof(tokenId, fc.constantFrom(...bytes));
    const pushes = fc.array(fc.array(anyToken, { maxLength: 4 }), { maxLength: 30 });
    fc.assert(
      fc.property(pushes, fc.boolean(), (chunks, skipSpecialTokens) => {
        const detokenizer = tokenizer.incremental({ skipSpecialTokens });
        const parts = chunks.map((chunk) => detokenizer.push(chunk));
        const streamed = parts.join('') + detokenizer.flush();
        expect(streamed).toBe(tokenizer.decode(chunks.flat(), { skipSpecialTokens }));
      }),
      { numRuns: 300 },
    );
  });
});

/** Rust's decoder gives up whole runs of byte tokens that hold an invalid byte; see PiecesDetokenizer. */
function endsInBrokenByteRun(tokenizer: TextTokenizer, ids: readonly number[]): boolean {
  const tokens = ids.map((id) => tokenizer.idToToken(id) ?? '');
  if (!tokens.some((token) => /^<0x..>$/.test(token))) return false;
  return tokenizer.decode(ids).includes('\uFFFD');
}

function byteTokens(tokenizer: TextTokenizer): number[] {
  const ids = Array.from({ length: tokenizer.vocabSize }, (_, id) => id);
  return ids.filter((id) => {
    const token = tokenizer.idToToken(id) ?? '';
    return token.length === 1 || /^<0x..>$/.test(token);
  });
}

describe('a stream', () => {
  it('shows a character only when all of its bytes are there', () => {
    const { tokenizer } = opened.get('stories')!;
    const detokenizer = tokenizer.incremental({ skipSpecialTokens: true });
    const ids = tokenizer.encode('a🙂b');
    const parts = ids.map((id) => detokenizer.push([id]));
    expect(parts.filter((part) => part !== '')).toEqual(['a', '🙂', 'b']);
    expect(detokenizer.flush()).toBe('');
  });

  it('shows each character of a run of byte tokens as soon as it is whole', () => {
    const { tokenizer } = opened.get('llama-like')!;
    const ids = [...Buffer.from('🙂é')].map((byte) => byteToken(tokenizer, byte));
    const detokenizer = tokenizer.incremental({ skipSpecialTokens: true });
    expect(ids.map((id) => detokenizer.push([id]))).toEqual(['', '', '', '🙂', '', 'é']);
  });

  it('replaces each byte of an unfinished character when other text follows', () => {
    const { tokenizer } = opened.get('llama-like')!;
    const unfinished = [0xf0, 0x9f].map((byte) => byteToken(tokenizer, byte));
    const after = tokenizer.encode('a', { addSpecialTokens: false });
    expect(tokenizer.decode([...unfinished, ...after])).toMatch(/^\uFFFD\uFFFD ?a$/);
  });

  it('leaves out ids that the vocabulary does not have', () => {
    for (const { tokenizer } of opened.values()) {
      const ids = tokenizer.encode('one two');
      expect(tokenizer.decode([-1, ...ids, tokenizer.vocabSize, 1e9])).toBe(tokenizer.decode(ids));
    }
  });
});

function byteToken(tokenizer: TextTokenizer, byte: number): number {
  return tokenizer.tokenToId(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)!;
}

describe('a vocabulary with gaps', () => {
  const bpe = { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'] };
  const open = (model: object, decoder: object | null = null) =>
    new TextTokenizer(huggingFaceDefinition({ model, decoder }, {}, undefined));

  it('leaves out what no token spells where there is no unknown token', () => {
    expect(open(bpe).encode('axb')).toEqual([0, 1]);
    expect(open({ ...bpe, vocab: { ...bpe.vocab, '?': 3 }, unk_token: '?' }).encode('axb')).toEqual([
      0, 3, 1,
    ]);
  });
});

describe('a Unigram model', () => {
  it('is refused where its unknown token is none of its pieces', () => {
    const open = (unknownId: unknown) => {
      const vocab = [['?', 0], ['a', -1]]; // prettier-ignore
      return new TextTokenizer(
        huggingFaceDefinition({ model: { type: 'Unigram', vocab, unk_id: unknownId } }, {}, undefined),
      );
    };
    expect(open(0).encode('ax')).toEqual([1, 0]);
    for (const id of ['0', 2, -1, 0.5, {}]) expect(() => open(id)).toThrow('model.unk_id');
  });
});

describe('a token', () => {
  it('has the bytes that it adds to a text', () => {
    for (const kind of ['stories', 'qwen-like', 'llama-like'] as const) {
      const { tokenizer } = opened.get(kind)!;
      const ids = tokenizer.encode('Émile 🙂 said: «no»\n', { addSpecialTokens: false });
      const bytes = Buffer.concat(ids.map((id) => tokenizer.tokenBytes(id)));
      expect(bytes.toString().trimStart()).toBe('Émile 🙂 said: «no»\n');
    }
  });

  it('is special by its flag, by tokenizer_config.json, and never by its spelling', () => {
    const { tokenizer } = opened.get('qwen-like')!;
    const isSpecial = (token: string): boolean => tokenizer.isSpecial(tokenizer.tokenToId(token)!);
    expect(['<|end|>', '<|im_start|>', '<|only_in_config|>'].map(isSpecial)).toEqual([true, true, true]);
    expect(['<tool_call>', 'café'].map(isSpecial)).toEqual([false, false]);
    expect(tokenizer.tokenBytes(tokenizer.vocabSize)).toEqual(new Uint8Array(0));
    expect(tokenizer.idToToken(tokenizer.vocabSize)).toBeUndefined();
  });

  it('ends a text where tokenizer_config.json says so', () => {
    const { tokenizer } = opened.get('stories')!;
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.vocabSize]).toEqual([0, 2, 4096]);
  });
});
