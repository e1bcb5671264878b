/**
 * SmolLM2's own vocabulary (49 152 tokens), read from its GGUF file, against the ids that llama.cpp gave for these texts
 * (`tokenize(text, true)` of node-llama-cpp). The 98 MB file is not in the repository: without it this is skipped.
 */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { loadTokenizer } from '../src/tokenizer/load-tokenizer.js';
import { readGguf } from '../src/weights/gguf.js';

const file = fileURLToPath(new URL('../../../.models/SmolLM2-135M-Instruct.Q4_1.gguf', import.meta.url));
const hint = existsSync(file) ? '' : ' (skipped: npm run model:smollm2 fetches the file)';

describe.skipIf(!existsSync(file))(`the tokenizer of SmolLM2${hint}`, () => {
  it('gives the ids of llama.cpp, and their text', async () => {
    const { metadata } = readGguf(file);
    const tokenizer = (await loadTokenizer({ kind: 'gguf', metadata }))!;
    const encodings = JSON.parse(
      readFileSync(new URL('fixtures/tokenizers/smollm2.json', import.meta.url), 'utf8'),
    ) as [string, string][];
    for (const [text, ids] of encodings) {
      const expected = ids === '' ? [] : ids.split(' ').map(Number);
      expect([text, tokenizer.encode(text)]).toEqual([text, expected]);
      expect(tokenizer.decode(expected)).toBe(text);
    }
    expect([tokenizer.eosTokenId, tokenizer.isSpecial(2), tokenizer.vocabSize]).toEqual([2, true, 49152]);
    const prompt = tokenizer.applyChatTemplate([{ role: 'user', content: 'Hi' }], {
      addGenerationPrompt: true,
    });
    expect(prompt).toMatch(
      /^<\|im_start\|>system\n.*<\|im_end\|>\n<\|im_start\|>user\nHi<\|im_end\|>\n<\|im_start\|>assistant\n$/,
    );
    await tokenizer.close();
  });
});
