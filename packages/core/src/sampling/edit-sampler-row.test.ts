import { describe, expect, it } from 'vitest';
import type { LogitsEdits } from '../extensions/logits-processor.js';
import { editSamplerRow } from './edit-sampler-row.js';
import { samplingDefaults } from './resolve-sampling-params.js';
import { buildSamplerRow } from './sampler-row.js';
import type { SamplingParams } from './sampling-params.js';

const vocabSize = 10;

/** The row after one processor's, or several processors', edits. */
function edit(
  edits: LogitsEdits | readonly LogitsEdits[],
  params: Partial<SamplingParams> = {},
  output: readonly number[] = [],
  badWords: readonly number[] = [],
) {
  const row = buildSamplerRow(
    { ...samplingDefaults, ...params },
    { suppressTokens: [2], badWords: Int32Array.from(badWords), processedLogprobs: false },
  );
  const answers = [edits].flat().map((entry, i) => ({ name: `p${i}`, edits: entry }));
  const edited = editSamplerRow(row, answers, output, vocabSize);
  return {
    allowed: [...edited.allowedTokens],
    suppress: [...edited.suppressTokens],
    suppresses: output.length < edited.minTokens,
    bias: [...edited.biasTokens].map((token, i) => [token, edited.biasValues[i]]),
  };
}

describe('editSamplerRow', () => {
  it('keeps what the request asks for where processors say nothing', () => {
    const params = { allowedTokenIds: [1, 2, 3], logitBias: { 4: 2 }, minTokens: 2 };
    const own = { allowed: [1, 2, 3], suppress: [2], suppresses: true, bias: [[4, 2]] };
    expect(edit([], params)).toEqual(own);
    expect(edit({}, params)).toEqual(own);
    expect(edit({}, params, [5, 6])).toEqual({ ...own, suppress: [], suppresses: false });
  });

  it('allows what the request and every processor allow', () => {
    expect(edit({ allowed: [3, 4] }).allowed).toEqual([3, 4]);
    expect(edit({ allowed: Int32Array.of(3, 4) }).allowed).toEqual([3, 4]);
    expect(edit([{ allowed: [4, 5, 6] }, { allowed: [6, 5] }], { allowedTokenIds: [1, 5] }).allowed).toEqual([
      5,
    ]);
  });

  it('suppresses what anybody suppresses, at any length', () => {
    const edited = edit([{ suppress: [7] }, { suppress: [8] }], { minTokens: 1 });
    expect(edited).toMatchObject({ suppress: [7, 8, 2], suppresses: true });
    expect(edit({ suppress: [7] }, { minTokens: 1 }, [5])).toMatchObject({ suppress: [7], suppresses: true });
  });

  it('adds biases up', () => {
    const edits: LogitsEdits[] = [{ bias: [[4, 1]] }, { bias: [[4, 2], [5, -1]] }]; // prettier-ignore
    expect(edit(edits, { logitBias: { 4: 10, 6: 1 } }).bias).toEqual([[4, 13], [6, 1], [5, -1]]); // prettier-ignore
  });

  it.each<[string, LogitsEdits, Partial<SamplingParams>, readonly number[]]>([
    ['nothing allowed', { allowed: [] }, {}, []],
    ['all suppressed', { suppress: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] }, {}, []],
  ])('fails where %s is left', (_, edits, params, output) => {
    expect(() => edit(edits, params, output, [2, 4, 5])).toThrow(
      /^logits processor 'p0' leaves no token that may come next/,
    );
  });

  it.each<[string, LogitsEdits, Partial<SamplingParams>, readonly number[]]>([
    ['nothing that the request allows', { allowed: [1] }, { allowedTokenIds: [5] }, []],
    ['only the end before min_tokens', { allowed: [2] }, { minTokens: 1 }, []],
    ['only what completes a bad word', { allowed: [5] }, {}, [4]],
  ])('refuses a request that leaves %s', (_, edits, params, output) => {
    expect(() => edit(edits, params, output, [2, 4, 5])).toThrow(
      /^allowed_token_ids, bad_words or min_tokens of the request leave none of the tokens that logits processor 'p0' lets/,
    );
  });

  it.each<[unknown, string]>([
    [5, "logits processor 'p0' answered 5; expected an object, or undefined"],
    [{ allow: [1] }, "logits processor 'p0' answered a field 'allow'; expected allowed, suppress or bias"],
    [{ allowed: 3 }, "logits processor 'p0' answered allowed 3; expected a list of token ids"],
    [{ allowed: [10] }, "logits processor 'p0' answered the token 10 in allowed; expected an id from 0 to 9"],
    [
      { suppress: [-1] },
      "logits processor 'p0' answered the token -1 in suppress; expected an id from 0 to 9",
    ],
    [
      { suppress: ['1'] },
      "logits processor 'p0' answered the token 1 in suppress; expected an id from 0 to 9",
    ],
    [{ bias: { 1: 2 } }, `logits processor 'p0' answered bias {"1":2}; expected a list of [token id, value]`],
    [{ bias: [[1]] }, "logits processor 'p0' answered [1] in bias; expected [token id, value]"],
    [
      { bias: [[1.5, 1]] },
      "logits processor 'p0' answered the token 1.5 in bias; expected an id from 0 to 9",
    ],
    [
      { bias: [[1, Infinity]] },
      "logits processor 'p0' answered the bias Infinity of token 1; expected a finite number",
    ],
  ])('refuses %j', (answer, message) => {
    expect(() => edit(answer as LogitsEdits)).toThrow(message);
  });
});
