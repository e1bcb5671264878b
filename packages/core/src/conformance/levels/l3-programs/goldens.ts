/** Checkpoints with the answers of Hugging Face transformers; what counts as equal is said in tests/goldens/README.md. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rowMode, type Dtype } from '../../../backend/index.js';
import { invariant, TenonError } from '../../../errors.js';
import { openCheckpoint } from '../../../weights/open-checkpoint.js';
import { fail, type ConformanceCase } from '../../case.js';
import { expectClose } from '../../compare.js';
import type { Kit } from '../../kit.js';
import { TinyRun } from '../../tiny-run.js';

interface GoldenCase {
  readonly prompt: readonly number[];
  readonly last_logits: readonly number[];
  readonly prompt_logprobs: readonly number[];
  readonly greedy: readonly number[];
  /** Best minus second-best logit of each of `greedy`. */
  readonly margins: readonly number[];
}

/** Those that come with the package. */
const names = ['llama', 'mistral', 'qwen2', 'qwen3'];

interface Bounds {
  /** Of a logit, where given. */
  readonly logit?: number;
  /** Mean difference of the prompt's logprobs. */
  readonly meanLogprob: number;
  /** A token within this of the best one is right. */
  readonly margin: number;
}
const boundsOf: Readonly<Partial<Record<Dtype, Bounds>>> = {
  f32: { logit: 1e-3, meanLogprob: 1e-3, margin: 2e-3 },
  bf16: { meanLogprob: 0.04, margin: 0.15 },
  f16: { meanLogprob: 0.04, margin: 0.15 },
};

/** Of those that come with the package, and of the folders in `more`. */
export function goldenCases(more?: string): ConformanceCase[] {
  const own = more === undefined ? [] : goldenFolders(more);
  const named = new Set(own.map(({ name }) => name));
  const goldens = names.filter((name) => !named.has(name)).map((name) => ({ name, folder: undefined }));
  return [...goldens, ...own].flatMap(({ name, folder }) =>
    (['f32', 'bf16', 'f16'] as const).map((dtype) => ({
      name: `L3/golden-${name}/${dtype}/transformers`,
      run: (kit) => checkGolden(kit, folder ?? packagedFolder(name), dtype),
    })),
  );
}

/** Answers of the checkpoint as it is, where there are two sets. */
const answerFiles = ['exact.json', 'golden.json'] as const;

const answersOf = (folder: string): string | undefined =>
  answerFiles.map((file) => join(folder, file)).find((file) => existsSync(file));

function goldenFolders(root: string): { name: string; folder: string }[] {
  const entries = existsSync(root) ? readdirSync(root) : [];
  const folders = entries.map((name) => ({ name, folder: join(root, name) }));
  const goldens = folders.filter(({ folder }) => answersOf(folder) !== undefined);
  if (goldens.length > 0) return goldens;
  throw new TenonError(
    'config.invalid-option',
    `--goldens is '${root}'; expected a folder that holds a folder for each checkpoint, with its answers in golden.json`,
  );
}

/** In the package, seen from src and from the bundled dist. */
function packagedFolder(name: string): string {
  for (const up of ['../', '../../', '../../../', '../../../../']) {
    const folder = fileURLToPath(new URL(`${up}tests/goldens/${name}/`, import.meta.url));
    if (existsSync(folder)) return folder;
  }
  invariant(false, `@tenon/core comes without the golden checkpoint ${name}`);
}

async function checkGolden(kit: Kit, folder: string, dtype: Dtype): Promise<void> {
  kit.requireDtype(dtype);
  const { cases } = JSON.parse(readFileSync(answersOf(folder)!, 'utf8')) as { cases: GoldenCase[] };
  const longest = Math.max(...cases.map(({ prompt, greedy }) => prompt.length + greedy.length));
  const sizes = { tokens: longest, seqs: 1, length: longest };
  const run = await TinyRun.open(kit, await openCheckpoint(folder, { tokenizer: false }), dtype, sizes);
  for (const golden of cases) await checkCase(kit, run, golden, boundsOf[dtype]!);
  await run.close();
}

/** The whole prompt, then the golden tokens one by one. */
async function checkCase(kit: Kit, run: TinyRun, golden: GoldenCase, bounds: Bounds): Promise<void> {
  const { prompt, greedy, margins } = golden;
  const sequence = run.giver(kit.random()).sequence(prompt.length, prompt.length + greedy.length);
  const targets = prompt.slice(1).map((target, token) => ({ token, mode: rowMode.target, target }));
  const rows = [...targets, { token: prompt.length - 1 }];
  const { logits, logprobs, tokens } = (await run.run([sequence.next(prompt, rows)])).get(sequence.slot)!;
  const where = `a prompt of ${prompt.length} tokens`;
  const compared = { of: 'logits', columns: golden.last_logits.length, expected: golden.last_logits };
  if (bounds.logit !== undefined)
    expectClose({ ...compared, got: logits.at(-1)!, tolerance: () => bounds.logit! }, where);
  const off = golden.prompt_logprobs.map((value, i) => Math.abs(value - logprobs[i]!));
  const mean = off.reduce((sum, value) => sum + value, 0) / Math.max(1, off.length);
  if (!(mean <= bounds.meanLogprob)) fail(`${where}: its logprobs are off by ${mean} on average; expected ${bounds.meanLogprob} at most`); // prettier-ignore
  let token = tokens.at(-1)!;
  for (const [i, expected] of greedy.entries()) {
    if (margins[i]! > bounds.margin && token !== expected)
      fail(
        `${where}: token ${i + 1} of the answer is ${token}; expected ${expected}, ahead by ${margins[i]}`,
      );
    const next = await run.run([sequence.next([expected])]);
    token = next.get(sequence.slot)!.tokens[0]!;
  }
}
