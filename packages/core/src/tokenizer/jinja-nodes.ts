/** The syntax tree of a parsed Jinja template. */
export type Node = { readonly type: string } & Record<string, unknown>;

/** Every node, parents before children. */
export function* walk(value: unknown): Generator<Node> {
  if (typeof value !== 'object' || value === null) return;
  if (value instanceof Map) {
    for (const entry of value) yield* walk(entry);
    return;
  }
  if (typeof (value as { type?: unknown }).type === 'string') yield value as Node;
  for (const child of Object.values(value)) yield* walk(child);
}
