/** What a round of the stress test does, all of it a function of its seed: the engine's options and the requests. */
import { Random } from '@tenon/core/conformance';

/**
 * @typedef {object} StressRequest
 * @property {number} index in its round
 * @property {number[]} prompt token ids
 * @property {Partial<import('@tenon/core').SamplingParams>} params `seed` is always set, `outputKind` is cumulative
 * @property {number} delayMs from the beginning of its turn
 * @property {number} abortAfter outputs after which it is aborted; Infinity: never
 */

/** Tokens of the longest prompt with its answer. */
const maxModelLen = 320;
const dtypes = ['float32', 'bfloat16', 'float16'];

/** The parts of a round. `constraints` are the device's, `limits` those of the command line. */
export function makeRound(seed, { models, constraints, deviceDtypes, wantedDtype }) {
  const random = new Random(seed, 'round');
  const usable = dtypes.filter((dtype) => deviceDtypes.includes(shortName[dtype]));
  const dtype = wantedDtype ?? random.pick(usable);
  return {
    seed,
    model: random.pick(models),
    dtype,
    options: engineOptions(random, dtype, constraints),
    concurrency: 1 + random.below(24),
    numRequests: 8 + random.below(33),
    inThread: random.below(5) === 0,
    isStorm: random.below(4) === 0,
    /** Whether requests have what makes steps larger than `StepView::MaxPlainWords`, or results of many rows longer, for which devices may allocate. */
    hasLists: random.below(3) > 0,
  };
}

const shortName = { float32: 'f32', bfloat16: 'bf16', float16: 'f16' };

/** Few blocks, so that sequences give way; a random budget, so that prompts are cut anywhere. */
function engineOptions(random, dtype, constraints) {
  const { blockSizes, kvLayout, tokenBuckets, decodeBuckets = [] } = constraints;
  const isPaged = kvLayout !== 'slots';
  const blockSize = random.pick(blockSizes.slice(0, 2));
  const perSequence = isPaged ? Math.ceil(maxModelLen / blockSize) : 1;
  const wholePrompts = constraints.chunkedPrefill === false;
  const most = Math.min(constraints.maxTokens ?? 512, tokenBuckets.at(-1) ?? 512);
  const maxNumSeqs = Math.min(1 + random.below(32), constraints.maxSeqs ?? 32, decodeBuckets.at(-1) ?? 32);
  const budget = random.pick([16, 33, 64, 100, 256, 512]);
  return {
    dtype,
    maxModelLen,
    ...(isPaged && { blockSize }),
    maxNumSeqs,
    maxNumBatchedTokens: Math.min(most, wholePrompts ? 512 : Math.max(budget, maxNumSeqs)),
    numGpuBlocksOverride: Math.ceil(perSequence * random.pick([1.2, 2, 3, 8])) + 1,
    enablePrefixCaching: !wholePrompts && random.below(3) > 0,
    asyncScheduling: random.below(4) > 0,
    watermark: random.pick([0, 0.01]),
    generationConfig: 'tenon',
    maxLogprobs: 20,
  };
}

/** @returns {StressRequest[]} */
export function makeRequests({ seed, numRequests, hasLists }, { vocabSize, tokenizer, isCheap }) {
  const random = new Random(seed, 'requests');
  const shared = promptTokens(random, 200, vocabSize, tokenizer);
  return Array.from({ length: numRequests }, (_, index) => {
    const prefix = shared.slice(0, random.pick([0, 0, 0, 17, 64, 200]));
    const own = promptTokens(random, 1 + random.below(random.pick([8, 60])), vocabSize, tokenizer);
    return {
      index,
      prompt: [...prefix, ...own],
      params: withoutLists(randomParams(random, vocabSize, tokenizer, isCheap), hasLists),
      delayMs: random.pick([0, 0, 0, random.below(20)]),
      abortAfter: random.below(7) === 0 ? random.below(12) : Infinity,
    };
  });
}

/** Of a model with text, real text, cut anywhere; else any tokens. */
function promptTokens(random, size, vocabSize, tokenizer) {
  if (tokenizer === undefined) return random.ints(size, vocabSize);
  const nouns = ['dog', 'boat', 'garden', 'moon', 'clock', 'river', 'bird', 'hat'];
  const sentences = Array.from(
    { length: Math.ceil(size / 8) + 1 },
    () => `The little ${random.pick(nouns)} saw a ${random.pick(nouns)}, and they went home.`,
  );
  return [...tokenizer.encode(sentences.join(' '))].slice(0, size);
}

const listParams = [
  'repetitionPenalty',
  'presencePenalty',
  'frequencyPenalty',
  'minTokens',
  'logitBias',
  'allowedTokenIds',
  'promptLogprobs',
];

const withoutLists = (params, hasLists) =>
  Object.fromEntries(Object.entries(params).filter(([name]) => hasLists || !listParams.includes(name)));

function randomParams(random, vocabSize, tokenizer, isCheap) {
  const maybe = (value, chance = 4) => (random.below(chance) === 0 ? value : undefined);
  const temperature = random.pick([0, 0, 0.3, 0.7, 1, 1.5]);
  const given = {
    maxTokens: 1 + random.below(random.pick(isCheap ? [6, 40] : [12, 60])),
    temperature,
    n: temperature > 0 && random.below(5) === 0 ? 2 + random.below(3) : 1,
    seed: random.below(2 ** 31),
    topP: maybe(0.3 + 0.7 * random.uniform()),
    topK: maybe(1 + random.below(40)),
    minP: maybe(0.2 * random.uniform()),
    repetitionPenalty: maybe(0.8 + random.uniform(), 5),
    presencePenalty: maybe(2 * random.uniform() - 0.5, 5),
    frequencyPenalty: maybe(random.uniform(), 5),
    minTokens: maybe(1, 6),
    ignoreEos: random.below(2) === 0,
    stopTokenIds: maybe(random.ints(3, vocabSize), 6),
    stop: tokenizer === undefined ? undefined : maybe([random.pick(['.', ' he', 'dog', 'ly'])], 6),
    logitBias: maybe({ [random.below(vocabSize)]: 3, [random.below(vocabSize)]: -100 }, 6),
    allowedTokenIds: maybe(random.ints(30, vocabSize), 12),
    logprobs: maybe(random.below(6), 3),
    promptLogprobs: maybe(random.below(3), 8),
    outputKind: 'cumulative',
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}
