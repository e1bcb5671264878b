import type { Random } from './random.js';

/**
 * Few combinations of the parameters' values in which every pair of values of any two parameters occurs: a case that fails
 * for two reasons together is found without the whole product.
 */
export function pairwise<P extends Record<string, readonly unknown[]>>(
  parameters: P,
  random: Random,
): { [K in keyof P]: P[K][number] }[] {
  const names = Object.keys(parameters);
  const missing = new Set<string>();
  for (const [i, a] of names.entries())
    for (const b of names.slice(i + 1))
      parameters[a]!.forEach((_, x) => parameters[b]!.forEach((__, y) => missing.add(`${a}:${x},${b}:${y}`)));
  if (names.length === 1) return parameters[names[0]!]!.map((value) => ({ [names[0]!]: value })) as never;
  const rows: Record<string, number>[] = [];
  while (missing.size > 0) {
    const row = bestOf(candidates(parameters, names, missing, random), names, missing);
    for (const pair of pairsOf(row, names)) missing.delete(pair);
    rows.push(row);
  }
  return rows.map((row) =>
    Object.fromEntries(names.map((name) => [name, parameters[name]![row[name]!]])),
  ) as never;
}

function pairsOf(row: Readonly<Record<string, number>>, names: readonly string[]): string[] {
  return names.flatMap((a, i) => names.slice(i + 1).map((b) => `${a}:${row[a]},${b}:${row[b]}`));
}

/** Random rows, each with a pair that is still missing. */
function candidates(
  parameters: Readonly<Record<string, readonly unknown[]>>,
  names: readonly string[],
  missing: ReadonlySet<string>,
  random: Random,
): Record<string, number>[] {
  const wanted = [...missing];
  return Array.from({ length: 12 }, () => {
    const row = Object.fromEntries(names.map((name) => [name, random.below(parameters[name]!.length)]));
    for (const part of random.pick(wanted).split(',')) {
      const [name, value] = part.split(':') as [string, string];
      row[name] = Number(value);
    }
    return row;
  });
}

function bestOf(
  rows: readonly Record<string, number>[],
  names: readonly string[],
  missing: ReadonlySet<string>,
): Record<string, number> {
  const gain = (row: Record<string, number>): number =>
    pairsOf(row, names).filter((pair) => missing.has(pair)).length;
  return rows.reduce((best, row) => (gain(row) > gain(best) ? row : best));
}
