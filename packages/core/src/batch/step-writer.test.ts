import { describe, expect, it } from 'vitest';
import { rowMode } from '../backend/index.js';
import { StepView } from '../../tests/support/history-model.js';
import { samplingDefaults } from '../sampling/resolve-sampling-params.js';
import { buildSamplerRow, withSeed } from '../sampling/sampler-row.js';
import type { SamplingParams } from '../sampling/sampling-params.js';
import { ScheduledStep } from '../scheduler/scheduled-step.js';
import { Sequence } from '../scheduler/sequence.js';
import { CaptureKeys } from './capture-keys.js';
import { StepWriter } from './step-writer.js';

const writerOptions = { maxNumSeqs: 8, maxNumBatchedTokens: 64, tokenBuckets: [], blockSize: 4 };

function sequenceOf(
  prompt: readonly number[],
  params: Partial<SamplingParams> = {},
  badWords = new Int32Array(0),
): Sequence {
  const complete = { ...samplingDefaults, ...params };
  const sampler = withSeed(
    buildSamplerRow(complete, { suppressTokens: [7, 8], badWords, processedLogprobs: false }),
    5n,
    0,
  );
  const sequence = new Sequence({
    id: 1,
    promptTokenIds: Int32Array.from(prompt),
    maxTokens: 4000,
    maxModelLen: 8000,
    priority: 0,
    extraKey: undefined,
    stopTokens: new Set(),
    minTokens: complete.minTokens,
    maxTopLogprobs: complete.promptLogprobs ?? 0,
    wantsPromptLogprobs: complete.promptLogprobs !== undefined,
    sampler,
  });
  sequence.state = 'running';
  sequence.isFresh = true;
  for (let i = 0; i < Math.ceil(prompt.length / 4); i++) sequence.table.push(10 + i);
  return sequence;
}

function stepOf(...sequences: Sequence[]): ScheduledStep {
  const step = new ScheduledStep(8);
  for (const sequence of sequences) step.add(sequence, sequence.numRemaining);
  return step;
}

describe('StepWriter', () => {
  it('lays out tokens, slots and tables of ragged sequences', () => {
    const second = sequenceOf([4, 5, 6, 7, 8, 9]);
    second.numComputedTokens = 3;
    second.slot = 6;
    const step = new StepView(new StepWriter(writerOptions).write(stepOf(sequenceOf([1, 2]), second), 9));
    const region = (name: Parameters<StepView['at']>[0], count: number) =>
      Array.from({ length: count }, (_, i) => step.at(name, i));
    expect([
      step.field('stepId'),
      step.field('numTokens'),
      step.field('numSeqs'),
      step.field('numLogitRows'),
    ]).toEqual([9, 5, 2, 2]);
    expect(region('tokenIds', 5)).toEqual([1, 2, 7, 8, 9]);
    expect(region('positions', 5)).toEqual([0, 1, 3, 4, 5]);
    expect(region('slotMapping', 5)).toEqual([40, 41, 43, 44, 45]);
    expect(region('cuSeqlensQ', 3)).toEqual([0, 2, 5]);
    expect(region('seqLens', 2)).toEqual([2, 6]);
    expect(region('promptLens', 2)).toEqual([2, 6]);
    expect(region('seqSlots', 2)).toEqual([0, 6]);
    expect(region('logitRows', 2)).toEqual([1, 4]);
    expect(step.at('blockTables', step.field('blockTableStride'))).toBe(10);
    expect(step.at('blockTables', step.field('blockTableStride') + 1)).toBe(11);
  });

  it('writes per-row lists only where some row has them, and empty ones for the others', () => {
    const plain = sequenceOf([1, 2]);
    const rich = sequenceOf(
      [3],
      { logitBias: { 4: 1.5, 9: -2 }, allowedTokenIds: [4, 9, 12], minTokens: 2 },
      Int32Array.of(1, 5, 2, 6, 7),
    );
    const writer = new StepWriter(writerOptions);
    const words = writer.write(stepOf(plain, rich), 1);
    const step = new StepView(words);
    const floats = new Float32Array(words.buffer);
    expect([...step.list('allowedOffsets', 'allowedTokens', 0)]).toEqual([]);
    expect([...step.list('allowedOffsets', 'allowedTokens', 1)]).toEqual([4, 9, 12]);
    expect([...step.list('biasOffsets', 'biasTokens', 1)]).toEqual([4, 9]);
    expect([...floats.subarray(step.offset('biasValues'), step.offset('biasValues') + 2)]).toEqual([1.5, -2]);
    expect([...step.list('suppressOffsets', 'suppressTokens', 1)]).toEqual([7, 8]);
    expect([...step.list('badWordsOffsets', 'badWords', 1)]).toEqual([1, 5, 2, 6, 7]);

    const bare = new StepView(writer.write(stepOf(plain), 2));
    for (const region of [
      'allowedOffsets',
      'biasOffsets',
      'suppressOffsets',
      'badWordsOffsets',
      'historySeqs',
    ] as const) {
      expect(bare.offset(region)).toBe(0);
    }
  });

  it('sends the history of a sequence once, when its slot is new', () => {
    const sequence = sequenceOf([3, 1, 4], { repetitionPenalty: 1.2 });
    const writer = new StepWriter(writerOptions);
    const first = new StepView(writer.write(stepOf(sequenceOf([9]), sequence), 1));
    expect(first.field('numHistorySeqs')).toBe(1);
    expect(first.at('historySeqs', 0)).toBe(1);
    expect([...first.list('historyOffsets', 'historyTokens', 0)]).toEqual([3, 1, 4]);
    sequence.isFresh = false;
    const second = new StepView(writer.write(stepOf(sequence), 2));
    expect([second.field('numHistorySeqs'), second.offset('historySeqs')]).toEqual([0, 0]);
  });

  it('asks for a logprob of each prompt token but the first, before the sampled row', () => {
    const sequence = sequenceOf([3, 1, 4, 1], { promptLogprobs: 2, logprobs: 0 });
    const step = new StepView(new StepWriter(writerOptions).write(stepOf(sequence), 1));
    const rows = Array.from({ length: 4 }, (_, i) => [
      step.at('logitRows', i),
      step.at('rowModes', i),
      step.at('targets', i),
      step.at('numLogprobs', i),
    ]);
    expect(rows).toEqual([
      [0, rowMode.target, 1, 2],
      [1, rowMode.target, 4, 2],
      [2, rowMode.target, 1, 2],
      [3, rowMode.sample, -1, 0],
    ]);
    expect(step.field('maxTopLogprobs')).toBe(2);
  });

  it('takes no more words than the largest step of the plan, for which devices keep room', () => {
    const wordsOf = (tokenBuckets: readonly number[]) =>
      new StepWriter({ ...writerOptions, maxNumSeqs: 1, maxNumBatchedTokens: 16, tokenBuckets }).write(stepOf(sequenceOf([1, 2])), 1).length; // prettier-ignore
    expect(wordsOf([16, 4096])).toBe(wordsOf([16]));
  });

  it('keeps everything when lists or tables outgrow the buffer', () => {
    const writer = new StepWriter(writerOptions);
    const long = sequenceOf(
      Array.from({ length: 5000 }, (_, i) => i % 100),
      { presencePenalty: 1 },
    );
    long.numComputedTokens = 4990;
    const other = sequenceOf([5, 6]);
    for (const sequences of [[other], [other, long], [long, other], [other]]) {
      const step = new StepView(writer.write(stepOf(...sequences), 1));
      const stride = step.field('blockTableStride');
      sequences.forEach((sequence, i) => {
        const { numBlocks, blocks } = sequence.table;
        const table = Array.from({ length: numBlocks }, (_, k) => step.at('blockTables', i * stride + k));
        expect(table).toEqual([...blocks.subarray(0, numBlocks)]);
        expect(step.at('tokenIds', step.at('cuSeqlensQ', i))).toBe(
          sequence.tokenIds[sequence.numComputedTokens],
        );
        if (sequence === long) expect(step.list('historyOffsets', 'historyTokens', 0).length).toBe(5000);
      });
      expect(step.field('sizeWords')).toBe(step.words.length);
    }
  });

  it('gives steps of one key one shape and one kind of sampling, and few widths of tables', () => {
    const captureKeys = new CaptureKeys();
    const writer = new StepWriter({ ...writerOptions, captureKeys, maxBlocksPerSeq: 100 });
    const write = (params: Partial<SamplingParams>, numBlocks = 1): StepView => {
      const sequence = sequenceOf([1], { temperature: 0, ...params });
      sequence.isFresh = false;
      while (sequence.table.numBlocks < numBlocks) sequence.table.push(9);
      return new StepView(writer.write(stepOf(sequence), 1));
    };
    const keyOf = (...given: Parameters<typeof write>) => write(...given).field('captureKey');
    const asked = [
      {},
      { temperature: 1 },
      { logprobs: 0 },
      { presencePenalty: 1 },
      { topK: 5 },
      { temperature: 1, topP: 0.9 },
    ];
    expect(asked.map((params) => keyOf(params))).toEqual([1, 2, 3, 4, 1, 5]);
    expect([1, 64, 65, 1].map((numBlocks) => write({}, numBlocks).field('blockTableStride'))).toEqual([64, 64, 100, 100]); // prettier-ignore
  });
});
