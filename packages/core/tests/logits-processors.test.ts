import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NamedProcessor } from '../src/engine/logits-processors.js';
import type { TenonError } from '../src/errors.js';
import type { LogitsEdits, LogitsProcessorContext } from '../src/extensions/logits-processor.js';
import { resolveSamplingParams } from '../src/sampling/resolve-sampling-params.js';
import { expectedTokens } from './support/history-model.js';
import { TestEngine } from './support/test-engine.js';

const vocabSize = 1000;
const everyToken = Array.from({ length: vocabSize }, (_, id) => id);

/** What a test's processor answers, by the output so far. */
type Rule = (outputTokenIds: readonly number[], context: LogitsProcessorContext) => LogitsEdits | undefined;

/** Used by the requests whose `rule` names it; checks that it is asked once for each token. */
const ruled = (rules: Readonly<Record<string, Rule>>): NamedProcessor => ({
  name: 'ruled',
  extension: {
    args: ['rule'],
    validate: ({ rule }) => {
      if (rule !== undefined && !Object.hasOwn(rules, String(rule)))
        throw new Error(`there is no rule '${String(rule)}'`);
    },
    create: ({ rule }, context) => {
      if (rule === undefined) return undefined;
      let numAsked = 0;
      return {
        next: (output) => {
          expect(output).toHaveLength(numAsked++);
          return rules[String(rule)]!(output, context);
        },
      };
    },
  },
});

/** The only token that `chain` allows after others. */
const chained = (output: readonly number[]): number =>
  ((output.at(-1) ?? 5) * 31 + output.length) % vocabSize;

const rules: Readonly<Record<string, Rule>> = {
  nothing: () => undefined,
  all: () => ({ allowed: everyToken, suppress: [], bias: [] }),
  chain: (output) => ({ allowed: [chained(output)] }),
};

function expectedOf(rule: string | undefined, prompt: readonly number[], count: number): number[] {
  if (rule !== 'chain') return expectedTokens(prompt, count, vocabSize);
  const tokens: number[] = [];
  while (tokens.length < count) tokens.push(chained(tokens));
  return tokens;
}

const promptOf = (length: number, salt: number) =>
  Array.from({ length }, (_, i) => (i * 7 + salt * 131 + 3) % vocabSize);

const setups = fc.record({
  numBlocks: fc.integer({ min: 18, max: 48 }),
  maxNumSeqs: fc.integer({ min: 1, max: 6 }),
  maxNumBatchedTokens: fc.integer({ min: 8, max: 40 }),
  stepsInFlight: fc.integer({ min: 1, max: 3 }),
});
const requests = fc.array(
  fc.record({
    rule: fc.constantFrom(undefined, 'nothing', 'all', 'chain'),
    promptLength: fc.integer({ min: 1, max: 30 }),
    salt: fc.integer({ min: 0, max: 1 }),
    maxTokens: fc.integer({ min: 1, max: 30 }),
    n: fc.constantFrom(1, 1, 3),
    /** Outputs after which the consumer leaves. */
    leaveAfter: fc.option(fc.integer({ min: 1, max: 20 }), { nil: undefined }),
  }),
  { minLength: 1, maxLength: 8 },
);

describe('logits processors', () => {
  it('decide every token, whatever else runs, leaves and is preempted; where they allow all, nothing changes', async () => {
    let numPreemptions = 0;
    await fc.assert(
      fc.asyncProperty(setups, requests, async (setup, list) => {
        const engine = new TestEngine({ ...setup, maxModelLen: 64, logitsProcessors: [ruled(rules)] });
        await Promise.all(
          list.map(async ({ rule, promptLength, salt, maxTokens, n, leaveAfter }) => {
            const prompt = promptOf(promptLength, salt);
            const extraArgs: Record<string, unknown> = rule === undefined ? {} : { rule };
            let numOutputs = 0;
            for await (const { outputs } of engine.stream(prompt, { extraArgs, maxTokens, n })) {
              for (const { tokenIds } of outputs)
                expect(tokenIds).toEqual(expectedOf(rule, prompt, maxTokens).slice(0, tokenIds.length));
              if (++numOutputs === leaveAfter) return;
            }
          }),
        );
        await engine.idle();
        expect(engine.client.stats().numUsedBlocks).toBe(0);
        numPreemptions += engine.client.stats().numPreemptionsTotal;
      }),
      { numRuns: 60 },
    );
    expect(numPreemptions).toBeGreaterThan(0);
  });

  it('see the tokens so far, never one in flight, while other requests stay two steps ahead', async () => {
    const outputs: number[][] = [];
    const engine = new TestEngine({
      logitsProcessors: [ruled({ watch: (output) => void outputs.push([...output]) })],
    });
    const prompt = promptOf(5, 0);
    const [watched] = await Promise.all([
      engine.run(prompt, { maxTokens: 6, extraArgs: { rule: 'watch' } }),
      engine.run(promptOf(5, 1), { maxTokens: 12 }),
    ]);
    const { tokenIds } = watched.outputs[0]!;
    expect(outputs).toEqual(Array.from({ length: 6 }, (_, i) => tokenIds.slice(0, i)));
    // Twelve tokens of the other need twelve steps; those of the watched one are in every second of them.
    expect(engine.client.stats().numStepsTotal).toBeLessThanOrEqual(14);
  });

  it('are told what the request is', async () => {
    const contexts: LogitsProcessorContext[] = [];
    const engine = new TestEngine({
      maxModelLen: 32,
      eosTokenIds: [9],
      logitsProcessors: [
        ruled({ look: (output, context) => void (output.length === 0 && contexts.push(context)) }),
      ],
    });
    await engine.run([1, 2, 3], { n: 2, minTokens: 1, maxTokens: 2, extraArgs: { rule: 'look' } });
    await engine.run([4], { maxTokens: undefined, stopTokenIds: [7], extraArgs: { rule: 'look' } });
    const first = {
      vocabSize,
      promptTokenIds: [1, 2, 3],
      endTokenIds: [9],
      maxTokens: 2,
      minTokens: 1,
      vocabulary: undefined,
    };
    expect(contexts).toEqual([
      { ...first, sequenceIndex: 0 },
      { ...first, sequenceIndex: 1 },
      { ...first, promptTokenIds: [4], endTokenIds: [9, 7], maxTokens: 31, minTokens: 0, sequenceIndex: 0 },
    ]);
  });

  const bad: Readonly<Record<string, Rule>> = {
    throws: (output) => {
      if (output.length === 3) throw new Error('it broke');
      return {};
    },
    'unknown token': (output) => ({ allowed: output.length === 2 ? [vocabSize] : [5] }),
    'nothing left': () => ({ allowed: [] }),
  };

  it.each([
    ['throws', "logits processor 'ruled' failed: it broke"],
    [
      'unknown token',
      "logits processor 'ruled' answered the token 1000 in allowed; expected an id from 0 to 999",
    ],
    ['nothing left', "logits processor 'ruled' leaves no token that may come next"],
  ])('fail their request alone: %s', async (rule, message) => {
    const engine = new TestEngine({ logitsProcessors: [ruled(bad)] });
    const prompt = promptOf(6, 0);
    const others = [promptOf(6, 1), promptOf(9, 0)];
    const [failed, ...answers] = await Promise.all([
      engine.run(prompt, { n: 3, maxTokens: 9, extraArgs: { rule } }).catch((error: TenonError) => error),
      ...others.map((other) => engine.run(other, { maxTokens: 9 })),
    ]);
    expect(failed).toMatchObject({
      code: 'internal.extension-failed',
      message: expect.stringContaining(message) as string,
    });
    answers.forEach(({ outputs }, i) =>
      expect(outputs[0]!.tokenIds).toEqual(expectedTokens(others[i]!, 9, vocabSize)),
    );
    await engine.idle();
    expect(engine.client.stats()).toMatchObject({ numUsedBlocks: 0, numRunning: 0, numWaiting: 0 });
  });

  it('refuse arguments before anything is computed, and so does the engine where none reads them', async () => {
    const engine = new TestEngine({ logitsProcessors: [ruled(rules)] });
    await expect(engine.run([1], { extraArgs: { rule: 'none' } })).rejects.toMatchObject({
      code: 'request.invalid-value',
      param: 'extraArgs',
      message: "logits processor 'ruled' refuses the extra arguments: there is no rule 'none'",
    });
    expect(engine.model.numSteps).toBe(0);
    const limits = { ...engine.client.info, spelling: 'snake_case' } as const;
    expect(() => resolveSamplingParams({ extraArgs: { rules: 1 } }, {}, limits)).toThrow(
      "vllm_xargs has 'rules', which no logits processor reads; they read rule (ruled)",
    );
    expect(() => new TestEngine().request([1], { extraArgs: { rule: 1 } })).toThrow(
      "extraArgs has 'rule', which no logits processor reads; start the engine with logits-processors",
    );
    expect(() => engine.request([1], { extraArgs: { rule: () => 1 } })).toThrow('extraArgs is not JSON');
  });

  it.each<[string, () => unknown, string]>([
    [
      'throws',
      () => {
        throw new Error('no');
      },
      "logits processor 'odd' failed: no",
    ],
    [
      'answers 3',
      () => 3,
      "logits processor 'odd' created 3; expected an object with a function next, or undefined",
    ],
  ])('fail the request whose processor cannot be made: create %s', async (_, create, message) => {
    const extension = { args: [], create: create as () => undefined };
    const engine = new TestEngine({ logitsProcessors: [{ name: 'odd', extension }] });
    await expect(engine.run([1])).rejects.toMatchObject({ code: 'internal.extension-failed', message });
  });
});
