/**
 * The step: one flat buffer that says all a backend needs to run one forward pass, and one that takes its results.
 * Core writes it, the backend reads it; both follow this schema (`schema.gen.h` is generated from it).
 *
 * A step is `headerWords` int32 words, then regions. The header's `regions` part gives the word offset of each region, in
 * the order of `stepRegions`; an offset of 0 means that the step has no such region. All elements are 4 bytes.
 */
export const stepMagic = 0x50455453; // 'STEP'
export const stepVersion = 1;

/** Header words, by position. */
export const stepHeader = [
  'magic', 'version', 'stepId',
  /** Tokens, sequences and logit rows of this step; padded token rows (bucketing) are counted and have slot -1. */
  'numTokens', 'numSeqs', 'numLogitRows',
  /** int32 per row of blockTables. */
  'blockTableStride',
  /** Entries per row of topIds / topLogprobs (0: no logprobs wanted in this step). */
  'maxTopLogprobs',
  /** Words of the whole step. */
  'sizeWords',
  /** Entries of historySeqs. */
  'numHistorySeqs',
  /**
   * 0, or a number of the step's shape: steps of the same key have the same counts, the same regions at the same places, and no
   * ragged lists, so what was recorded of one can be replayed for another. They are also alike in whether any row samples other than
   * greedily, does so with topK > 0, topP < 1 or minP > 0, wants logprobs (numLogprobs ≥ 0), or has a penalty that is not neutral.
   */
  'captureKey',
  'reserved2',
] as const; // prettier-ignore
export type StepHeaderField = (typeof stepHeader)[number];

/**
 * Regions. `i` int32, `f` float32. Ragged lists come as CSR: `xOffsets` [rows + 1], then values; offset 0 = no row has any.
 *
 * A step of single tokens that is padded to a bucket has sequences of padding behind the others: one token (id 0, position 0, slot -1),
 * a length of 1, block 0, a sampler slot that is not read, and a logit row with rowModes 0, for which nothing is sampled.
 *
 * Per token: tokenIds [T] (-1: the last token sampled for this sequence's slot, still on the device), positions [T],
 * slotMapping [T] (block * blockSize + offset, -1: pad).
 * Per sequence: cuSeqlensQ [S + 1], seqLens [S] (length with the new tokens), promptLens [S], seqSlots [S] (sampler slot,
 * stable while the sequence runs, 0 … maxSeqs - 1), blockTables [S, blockTableStride].
 * History: tokens so far (prompt, then output) of sequences whose sampler state starts afresh in this step and that need
 * it (penalties, bad words): historySeqs [n] (sequence numbers), CSR over n. The backend keeps the history per slot and
 * appends every token it samples for that slot; a sequence with none sent is not tracked.
 * Per logit row: logitRows [L] (token row), rowSeqs [L] (sequence number), rowModes [L] (bits of `rowMode`), and the
 * sampling parameters. targets [L]: the token whose logprob is wanted by a `target` row (prompt logprobs).
 * numLogprobs [L]: entries wanted in the row's top list; 0: the token's own logprob and rank only; -1: not even those (0, 0).
 * Only ragged lists may be absent. An empty row of allowedTokens allows all.
 * seedLow/seedHigh [L]: 64-bit seed; noise is a function of (seed, position + 1 of the row's token) alone.
 */
export const stepRegions = {
  tokenIds: 'i', positions: 'i', slotMapping: 'i',
  cuSeqlensQ: 'i', seqLens: 'i', promptLens: 'i', seqSlots: 'i', blockTables: 'i',
  historySeqs: 'i', historyOffsets: 'i', historyTokens: 'i',
  logitRows: 'i', rowSeqs: 'i', rowModes: 'i', targets: 'i', numLogprobs: 'i',
  seedLow: 'i', seedHigh: 'i',
  temperature: 'f', topK: 'i', topP: 'f', minP: 'f',
  presencePenalty: 'f', frequencyPenalty: 'f', repetitionPenalty: 'f',
  /** Tokens that may not be sampled in this step (min_tokens: end and stop tokens). */
  suppressOffsets: 'i', suppressTokens: 'i',
  allowedOffsets: 'i', allowedTokens: 'i',
  biasOffsets: 'i', biasTokens: 'i', biasValues: 'f',
  /** Bad words: per row a list of sequences, each as [length, tokens…]. */
  badWordsOffsets: 'i', badWords: 'i',
} as const; // prettier-ignore
export type StepRegion = keyof typeof stepRegions;
export const stepRegionNames = Object.keys(stepRegions) as StepRegion[];
export const stepHeaderWords = stepHeader.length + stepRegionNames.length;

/** Bits of rowModes. A row may ask for several. */
export const rowMode = {
  /** Sample a token, make it the slot's last token, append it to the slot's history. */
  sample: 1,
  /** temperature = 0: take the largest logit (the lowest id among equals). */
  greedy: 2,
  /** Logprob and rank of `targets[l]` instead of those of a sampled token. */
  target: 4,
  /** Report logprobs of the processed logits (after penalties, temperature, masks) rather than of the raw ones. */
  processedLogprobs: 8,
} as const;

/**
 * A step's result, int32/float32 words, with `numLogitRows` = L and `maxTopLogprobs` = K of the step:
 * header [resultHeaderWords]: stepId, status (0 ok), L, K, computeTimeUs, idleTimeUs, 2 reserved;
 * tokens i32 [L] (-1 where nothing was sampled), logprobs f32 [L], ranks i32 [L] (1 = most likely),
 * topIds i32 [L, K], topLogprobs f32 [L, K], descending; rows with fewer wanted entries are padded with -1;
 * then each tensor of kind `output` that no `sample` op writes, in the order of tensor numbers, row-major in its dtype, each
 * starting at a whole word (one-op programs of tests and probes read their answers there).
 */
export const resultHeader = [
  'stepId', 'status', 'numLogitRows', 'maxTopLogprobs',
  /** Microseconds from the step's begin on the device to its end, and those before it in which the device had no step (0 for the first). */
  'computeTimeUs', 'idleTimeUs',
  'reserved1', 'reserved2',
] as const; // prettier-ignore
export const resultHeaderWords = resultHeader.length;

/** Words of a result buffer for L rows with K top logprobs. */
export const resultWords = (numLogitRows: number, maxTopLogprobs: number): number =>
  resultHeaderWords + numLogitRows * (3 + 2 * maxTopLogprobs);
