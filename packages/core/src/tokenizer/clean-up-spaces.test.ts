import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { CleanUpDetokenizer, cleanUpSpaces } from './clean-up-spaces.js';

/** A detokenizer whose tokens are indices into `pieces`. */
function streamOf(pieces: readonly string[]): CleanUpDetokenizer {
  return new CleanUpDetokenizer({ push: (ids) => ids.map((id) => pieces[id]).join(''), flush: () => '' });
}

it('removes the spaces that transformers removes', () => {
  expect(cleanUpSpaces("Hello , world ! I do n't think it 's ' so ' . OK ?")).toBe(
    "Hello, world! I don't think it's'so '. OK?",
  );
});

it('cleans a stream up exactly as the whole text', () => {
  const piece = fc.constantFrom(
    ' ',
    '.',
    ' ,',
    "'",
    "' ",
    ' n',
    "'t",
    ' ',
    "'s",
    've',
    're',
    'm',
    'x',
    '  ',
    " '",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 24 }), (pieces) => {
      const stream = streamOf(pieces);
      const parts = pieces.map((_, id) => stream.push([id]));
      expect(parts.join('') + stream.flush()).toBe(cleanUpSpaces(pieces.join('')));
    }),
    { numRuns: 2000 },
  );
});
