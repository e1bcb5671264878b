import { GraphBuilder, type Value } from '../../src/program/graph-builder.js';

/** Numbers that say which earlier values an op reads, and whether it is a linear. */
export type Choice = readonly [number, number, boolean];

/** Token rows, then logit rows gathered from some of them; all f32 of one width. The last one is an output. */
export function randomProgram(choices: readonly Choice[]): { g: GraphBuilder; token: Value[] } {
  const g = new GraphBuilder('f32');
  const token: Value[] = [g.embedding(g.input('tokenIds'), g.matrix('embed', 9, 4))];
  const grow = (values: Value[], [a, b, isLinear]: Choice): Value => {
    const [x, y] = [values[a % values.length]!, values[b % values.length]!];
    return g.add(y, isLinear ? g.linear(x, g.matrix(`w${values.length}`, 4, 4)) : x);
  };
  for (const choice of choices) token.push(grow(token, choice));
  const rows = [0, 1, 2].map((i) =>
    g.gatherRows(token[(choices[i]?.[0] ?? 0) % token.length]!, g.input('logitRows')),
  );
  for (const choice of choices.slice(0, 6)) rows.push(grow(rows, choice));
  g.output(rows.at(-1)!);
  return { g, token };
}
