import type { GraphBuilder, Value } from '../program/graph-builder.js';

/** x [T, numColumns] times `<name>.weight` [numRows, numColumns], plus `<name>.bias` [numRows] if it has one → f32 [T, numRows]. */
export function projection(
  g: GraphBuilder,
  x: Value,
  name: string,
  { numRows, numColumns, bias }: { numRows: number; numColumns: number; bias: boolean },
): Value {
  const weight = g.matrix(`${name}.weight`, numRows, numColumns);
  return g.linear(x, weight, bias ? g.vector(`${name}.bias`, numRows) : undefined);
}
