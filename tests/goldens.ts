/** The golden checkpoints and the rule by which an answer equals theirs (packages/core/tests/goldens/README.md). */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../packages/core/tests/goldens/', import.meta.url));

export interface GoldenCase {
  readonly prompt: readonly number[];
  readonly last_logits: readonly number[];
  readonly prompt_logprobs: readonly number[];
  readonly greedy: readonly number[];
  readonly margins: readonly number[];
}

/** A checkpoint with one set of answers; the README says why some have two. */
export interface Golden {
  readonly name: string;
  readonly path: string;
  readonly hfOverrides: Readonly<Record<string, unknown>>;
  readonly cases: readonly GoldenCase[];
}

const casesOf = (file: string): GoldenCase[] => JSON.parse(readFileSync(file, 'utf8')).cases;

export const goldens: readonly Golden[] = readdirSync(root, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .flatMap(({ name }) => {
    const path = `${root}${name}`;
    const given = { name, path, hfOverrides: {}, cases: casesOf(`${path}/golden.json`) };
    if (!existsSync(`${path}/exact.json`)) return [given];
    return [
      { ...given, name: `${name} exact`, cases: casesOf(`${path}/exact.json`) },
      { ...given, name: `${name} rounded`, hfOverrides: { rope_frequency_dtype: 'bfloat16' } },
    ];
  });

const ggufRoot = fileURLToPath(new URL('fixtures/gguf/', import.meta.url));

/** GGUF files in a block format each, which stay quantized (fixtures/make_gguf_goldens.py). */
export const ggufGoldens: readonly Golden[] = readdirSync(ggufRoot)
  .filter((name) => name.endsWith('.gguf'))
  .map((file) => {
    const name = file.replace('.gguf', '');
    const path = `${ggufRoot}${file}`;
    return { name, path, hfOverrides: {}, cases: casesOf(`${ggufRoot}${name}.json`) };
  });

/** Margins above which the best token is certain, by type. */
export const nearTie = { float32: 2e-3, bfloat16: 0.15 } as const;

/** log softmax in float64. */
export function logSoftmax(logits: readonly number[]): number[] {
  const max = Math.max(...logits);
  const logSum = max + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
  return logits.map((logit) => logit - logSum);
}

/**
 * The first position where `tokens` leave the golden path although the golden's margin is certain; undefined if none. From a
 * near-tie on, both paths are right and no longer comparable.
 */
export function firstWrongToken(
  golden: GoldenCase,
  tokens: readonly number[],
  margin: number,
): number | undefined {
  for (const [i, expected] of golden.greedy.entries()) {
    if (tokens[i] === expected) continue;
    return (golden.margins[i] ?? 0) > margin ? i : undefined;
  }
  return undefined;
}

/** Mean absolute difference of two lists. */
export const meanDifference = (a: readonly number[], b: readonly number[]): number =>
  a.length === 0 ? 0 : a.reduce((sum, value, i) => sum + Math.abs(value - b[i]!), 0) / a.length;
