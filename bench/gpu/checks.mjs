// Whether answers are right. Engines in bf16 part ways at near-ties, so equality of whole answers is not asked for; three things are:
// every answer has its tokens, most begin alike in all engines, and no token is one that the model in f32 would not choose.
import { median } from './works.mjs';

/** Share of answers whose first token must be that of the first engine; 95 % are with these models (make_model.py). */
const minAlike = 0.75;
/** As multiples of what transformers in bf16 does at the same places: how far a token may be behind, and how often one is. */
const maxTimesBehind = 3;
const maxTimesOften = 2;
/** Standard deviations: below, a token is as good as the first. f32's own noise between two orders of summing is far less. */
const tie = 0.001;

/** Problems, as texts. `maxTokens`: a number, or one for each prompt. */
export function checkLengths(engine, outputs, prompts, maxTokens, vocabSize) {
  if (outputs.length !== prompts.length)
    return [`${engine}: ${outputs.length} answers to ${prompts.length} prompts`];
  return outputs.flatMap((tokens, i) => {
    const expected = Array.isArray(maxTokens) ? maxTokens[i] : maxTokens;
    if (tokens.length !== expected)
      return [`${engine}: answer ${i} has ${tokens.length} tokens; expected ${expected}`];
    const alien = tokens.find((token) => !(token >= 0 && token < vocabSize));
    return alien === undefined ? [] : [`${engine}: answer ${i} has token ${alien} of ${vocabSize}`];
  });
}

/** The first engine's answers beside the others': share of equal first tokens, and tokens until they part. */
export function checkAgreement(results) {
  const [[first, reference] = [], ...others] = Object.entries(results);
  const summary = {};
  const problems = [];
  for (const [name, { works }] of others) {
    for (const [work, { answers }] of Object.entries(works)) {
      const own = reference.works[work]?.answers;
      if (answers === undefined || own === undefined) continue;
      const lengths = answers.map(({ tokens }, i) => commonPrefix(tokens, own[i].tokens));
      const alike = lengths.filter((length) => length > 0).length / lengths.length;
      summary[`${name} ${work}`] = { alike, medianCommonPrefix: median(lengths) };
      if (alike < minAlike)
        problems.push(`${work}: ${name} and ${first} agree on the first token of only ${Math.round(alike * 100)} % of the prompts`); // prettier-ignore
    }
  }
  return { summary, problems };
}

function commonPrefix(a, b) {
  const first = a.findIndex((token, i) => token !== b[i]);
  return first === -1 ? a.length : first;
}

/**
 * Tokens against f32. A right engine in bf16 is behind where, and by what, rounding is: about as often and as far as transformers in
 * bf16 is at the same places. One that reads a wrong block of the prompt (the control) must not pass.
 */
export function checkVerdicts(verdicts) {
  const all = (name) => verdicts.flatMap((verdict) => verdict[name]);
  const [bf16, control] = [statistics(all('bf16Behind')), statistics(all('controlBehind'))];
  const margin = maxTimesBehind * Math.max(bf16.worst, 0.05);
  const summary = { 'transformers in bf16': bf16, 'the same with a wrong block': control };
  const problems = [];
  if (control.worst <= margin && control.numBehind <= mostBehind(bf16))
    problems.push('an engine that reads a wrong block would pass: with this model the check says nothing');
  for (const name of new Set(verdicts.map(({ engine }) => engine))) {
    const own = verdicts.filter(({ engine }) => engine === name);
    const stats = statistics(own.flatMap(({ behind }) => behind));
    const allowed = mostBehind(statistics(own.flatMap(({ bf16Behind }) => bf16Behind)));
    summary[name] = { ...stats, margin, allowed };
    if (stats.numBehind > allowed)
      problems.push(`${name}: ${stats.numBehind} of ${stats.numTokens} tokens are not the likeliest; bf16 explains ${allowed}`); // prettier-ignore
    for (const { work, behind } of own) {
      const worst = Math.max(...behind);
      if (worst > margin)
        problems.push(`${name}, ${work}: token ${behind.indexOf(worst)} of an answer is ${worst.toFixed(2)} standard deviations behind the likeliest; ${margin.toFixed(2)} are allowed`); // prettier-ignore
    }
  }
  return { summary, problems };
}

const mostBehind = (bf16) => maxTimesOften * bf16.numBehind + 5;

function statistics(behind) {
  return {
    numTokens: behind.length,
    numBehind: behind.filter((value) => value > tie).length,
    mean: behind.reduce((sum, value) => sum + value, 0) / behind.length,
    worst: Math.max(...behind),
  };
}
