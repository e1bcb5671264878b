/** The golden checkpoints on the reference backend, driven by hand-written steps: fused and unfused, whole, chunked, batched. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rowMode, type Dtype, type OpName, type Plan } from '../../src/backend/index.js';
import { createReferenceBackend } from '../../src/conformance/index.js';
import { buildPlan } from '../../src/program/build-plan.js';
import { openCheckpoint } from '../../src/weights/open-checkpoint.js';
import { PlainRunner, type PlainRow, type PlainSequence } from '../support/plain-step.js';

interface GoldenCase {
  readonly prompt: number[];
  readonly last_logits: number[];
  readonly prompt_logprobs: number[];
  readonly greedy: number[];
  readonly margins: number[];
}

const root = fileURLToPath(new URL('../goldens/', import.meta.url));

/** A checkpoint with one set of answers; goldens/README.md says why some have two. */
interface Golden {
  readonly title: string;
  readonly folder: string;
  readonly answers: 'golden.json' | 'exact.json';
  readonly hfOverrides: Readonly<Record<string, unknown>>;
}
const goldens: Golden[] = readdirSync(root, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .flatMap(({ name }): Golden[] => {
    const folder = `${root}${name}/`;
    const plain = { title: name, folder, answers: 'golden.json', hfOverrides: {} } as const;
    if (!existsSync(`${folder}exact.json`)) return [plain];
    const rounded = { rope_frequency_dtype: 'bfloat16' };
    return [
      { ...plain, title: `${name}, exact`, answers: 'exact.json' },
      { ...plain, title: `${name}, rounded frequencies`, hfOverrides: rounded },
    ];
  });
const casesOf = ({ folder, answers }: Golden): GoldenCase[] =>
  JSON.parse(readFileSync(`${folder}${answers}`, 'utf8')).cases;

const fusedOps: readonly OpName[] = ['linear_add', 'linear_gated', 'qkv_rope_kv_write'];
const blockSize = 16;
/** Not in order, so that a kernel that ignores the table fails. */
const shuffledBlocks = (numBlocks: number, offset = 0): number[] =>
  Array.from({ length: numBlocks }, (_, i) => ((i * 5 + 3) % numBlocks) + offset);

/** A golden checkpoint on a device, with the logits of the last step. */
class GoldenModel {
  readonly runner = new PlainRunner();
  plan!: Plan;
  /** [L][V] of the last step. */
  logits: number[][] = [];
  #stepId = 0;

  static async open(golden: Golden, dtype: Dtype, refused: readonly OpName[] = []): Promise<GoldenModel> {
    const model = new GoldenModel();
    const refuse = Object.fromEntries(refused.map((op) => [op, 'refused by the test']));
    const backend = createReferenceBackend({
      refuse,
      onValue: (op, tensor, { data, rows, columns }) => {
        if (tensor !== model.plan.ops.at(-1)!.inputs[0] || op.op !== 'linear') return;
        for (let r = 0; r < rows; r++)
          model.logits.push(Array.from(data.subarray(r * columns, (r + 1) * columns)));
      },
    });
    const group = await backend.create({ log: () => {} }).open(['reference:0'], {});
    const checkpoint = await openCheckpoint(golden.folder, { hfOverrides: golden.hfOverrides });
    const limits = {
      maxTokens: 512, maxSeqs: 8, maxLogitRows: 512, maxModelLen: 256, blockSize, numBlocks: 64,
      vocabSize: checkpoint.config.vocabSize,
    }; // prettier-ignore
    const { plan } = await buildPlan(checkpoint.config, dtype, group, limits);
    model.plan = plan;
    model.runner.executable = await group.load(model.plan, checkpoint, {
      onStepDone: model.runner.onStepDone,
    });
    return model;
  }

  run(sequences: readonly PlainSequence[]): ReturnType<PlainRunner['run']> {
    this.logits = [];
    return this.runner.run({ stepId: this.#stepId++, blockSize, sequences });
  }
}

/** The tokens from `start` on, with a row for each prompt logprob among them, and a greedy one at the end. */
function prefill(
  prompt: readonly number[],
  start: number,
  end: number,
  blocks: readonly number[],
  slot = 0,
): PlainSequence {
  const tokens = prompt.slice(start, end);
  const scored = tokens.slice(0, Math.min(tokens.length, prompt.length - 1 - start));
  const rows: PlainRow[] = scored.map((_, i) => ({
    token: i,
    mode: rowMode.target,
    target: prompt[start + i + 1]!,
  }));
  if (end === prompt.length) rows.push({ token: tokens.length - 1 });
  return { slot, tokens, start, promptLen: prompt.length, blocks, rows };
}

function worstDifference(actual: readonly number[], expected: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  return expected.reduce((worst, value, i) => Math.max(worst, Math.abs(value - actual[i]!)), 0);
}

/** Whole prompt, then decode along the golden tokens, which are right wherever the margin says so. */
async function checkCase(
  model: GoldenModel,
  golden: GoldenCase,
  margin: number,
): Promise<{ logprobs: number[] }> {
  const { prompt, greedy, margins } = golden;
  const blocks = shuffledBlocks(9);
  const first = await model.run([prefill(prompt, 0, prompt.length, blocks)]);
  let [token] = first.tokens.slice(-1);
  const lastLogits = model.logits.at(-1)!;
  for (const [i, expected] of greedy.entries()) {
    if (margins[i]! > margin) expect(token, `token ${i} of a prompt of ${prompt.length}`).toBe(expected);
    const step = { slot: 0, tokens: [expected], start: prompt.length + i, promptLen: prompt.length, blocks };
    [token] = (await model.run([{ ...step, rows: [{ token: 0 }] }])).tokens;
  }
  if (margin < 0.01)
    expect(worstDifference(lastLogits, golden.last_logits), 'last_logits').toBeLessThan(1e-3);
  return { logprobs: first.logprobs.slice(0, -1) };
}

describe.each(goldens.map((golden) => [golden.title, golden] as const))('%s', (_, checkpoint) => {
  const cases = casesOf(checkpoint);
  const models: Record<string, GoldenModel> = {};
  beforeAll(async () => {
    models.fused = await GoldenModel.open(checkpoint, 'f32');
    models.unfused = await GoldenModel.open(checkpoint, 'f32', fusedOps);
  });
  afterAll(async () => {
    for (const model of Object.values(models)) await model.runner.executable.close();
  });

  it.each(['fused', 'unfused'])('agrees with transformers in f32, %s', async (kind) => {
    const model = models[kind]!;
    expect(model.plan.ops.some((op) => fusedOps.includes(op.op))).toBe(kind === 'fused');
    for (const golden of cases) {
      const { logprobs } = await checkCase(model, golden, 2e-3);
      expect(worstDifference(logprobs, golden.prompt_logprobs), 'prompt_logprobs').toBeLessThan(1e-3);
    }
  });

  it('agrees with transformers in bf16, teacher-forced', async () => {
    const model = await GoldenModel.open(checkpoint, 'bf16');
    for (const golden of cases) {
      const { logprobs } = await checkCase(model, golden, 0.15);
      const total = logprobs.reduce(
        (sum, logprob, i) => sum + Math.abs(logprob - golden.prompt_logprobs[i]!),
        0,
      );
      expect(total / Math.max(1, logprobs.length)).toBeLessThan(0.04);
    }
    await model.runner.executable.close();
  });

  it('gives the same bits chunked, batched and alone', async () => {
    const model = models.fused!;
    const alone: { logprobs: number[]; logits: number[] }[] = [];
    for (const { prompt } of cases) {
      const { logprobs } = await model.run([prefill(prompt, 0, prompt.length, shuffledBlocks(7))]);
      alone.push({ logprobs: logprobs.slice(0, -1), logits: model.logits.at(-1)! });
    }
    const together = cases.map(({ prompt }, i) =>
      prefill(prompt, 0, prompt.length, shuffledBlocks(7, 7 * i), i),
    );
    const batch = await model.run(together);
    let row = 0;
    for (const [i, { rows }] of together.entries()) {
      expect(batch.logprobs.slice(row, row + rows.length - 1)).toEqual(alone[i]!.logprobs);
      expect(model.logits[row + rows.length - 1]).toEqual(alone[i]!.logits);
      row += rows.length;
    }
    for (const [i, { prompt }] of cases.entries()) {
      for (let start = 0; start < prompt.length; start += 7) {
        await model.run([prefill(prompt, start, Math.min(start + 7, prompt.length), shuffledBlocks(7))]);
      }
      expect(model.logits.at(-1)).toEqual(alone[i]!.logits);
    }
  });

  it('reads its own last token from the device', async () => {
    const { prompt, greedy, margins } = cases.at(-1)!;
    const blocks = shuffledBlocks(9);
    let { tokens } = await models.fused!.run([prefill(prompt, 0, prompt.length, blocks)]);
    const generated = [tokens.at(-1)!];
    for (let position = prompt.length; generated.length < 6; position++) {
      const step = {
        slot: 0,
        tokens: [-1],
        start: position,
        promptLen: prompt.length,
        blocks,
        rows: [{ token: 0 }],
      };
      ({ tokens } = await models.fused!.run([step]));
      generated.push(tokens[0]!);
    }
    const tie = margins.findIndex((margin) => margin <= 2e-3);
    const certain = tie < 0 ? 6 : Math.min(tie, 6);
    expect(generated.slice(0, certain)).toEqual(greedy.slice(0, certain));
  });
});
