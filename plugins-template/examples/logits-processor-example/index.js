/**
 * Answers that are a number: only digits may come, and after the first the end.
 *
 *   tenon serve --plugin ./logits-processor-example --logits-processors only-digits
 *
 * A request asks for it by an extra argument: `"vllm_xargs": { "only_digits": 4 }` for at most four digits.
 */

/** The tokens of digits, looked up once per vocabulary: a processor is made for each request, and a vocabulary is long. */
const digitTokens = new WeakMap();

function findDigitTokens({ vocabulary, vocabSize }) {
  if (!digitTokens.has(vocabulary)) {
    const ids = Array.from({ length: vocabSize }, (_, id) => id);
    const isDigits = (id) => /^[0-9]+$/.test(vocabulary.textOf(id));
    digitTokens.set(vocabulary, ids.filter(isDigits));
  }
  return digitTokens.get(vocabulary);
}

/** @type {import('@tenon/core/extensions').LogitsProcessorExtension} */
export default {
  // What it reads of a request's extra arguments. What no processor reads is refused, so that a misspelt one does not pass.
  args: ['only_digits'],

  // What is thrown here becomes a 400 with this message.
  validate({ only_digits: maxDigits }, { vocabulary }) {
    if (maxDigits === undefined) return;
    if (!Number.isInteger(maxDigits) || maxDigits < 1)
      throw new Error(`only_digits is ${JSON.stringify(maxDigits)}; expected a number of digits`);
    if (vocabulary === undefined) throw new Error('only_digits needs a tokenizer to know digits by');
  },

  // Once per sequence. Undefined: this one does not want it.
  create({ only_digits: maxDigits }, context) {
    if (maxDigits === undefined) return undefined;
    const { vocabulary, endTokenIds } = context;
    const digits = findDigitTokens(context);
    const lengthOf = (id) => vocabulary.textOf(id).length;
    let numDigits = 0;
    return {
      // Before each token, with those so far. Tokens are never taken back, so it is enough to look at the last one.
      next(tokenIds) {
        if (tokenIds.length > 0) numDigits += lengthOf(tokenIds.at(-1));
        const fitting = digits.filter((id) => numDigits + lengthOf(id) <= maxDigits);
        return { allowed: numDigits === 0 ? fitting : [...fitting, ...endTokenIds] };
      },
    };
  },
};
