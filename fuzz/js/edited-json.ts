/** A copy of a JSON value with edits that the fuzzer's bytes choose, so that most cases get past the parser. */
import type { ByteSource } from './byte-source.js';

type Container = Record<string, unknown> | unknown[];

const scalars: readonly unknown[] = [
  null, true, false, 0, 1, -1, 2, 3, 7, 16, 255, 256, 65_536, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), 2 ** 53, 1e308, -1e308, 5e-324,
  0.5, -0.5, 1e-6, '', 'a', ' ', '\0', '\ud800', '\u{1F600}', '▁', '<0x41>', '__proto__', 'constructor', 'toString', 'x'.repeat(5000),
]; // prettier-ignore
const maxEdits = 8;
const maxDeep = 600;

export function editedJson(base: unknown, source: ByteSource): unknown {
  const root = { value: structuredClone(base) };
  for (let edit = source.byte() % maxEdits; edit >= 0 && !source.isEmpty; edit--) editOnce(root, source);
  return root.value;
}

function editOnce(root: { value: unknown }, source: ByteSource): void {
  const [container, key] = choosePlace(root, source);
  const holder = container as Record<string, unknown>;
  switch (source.below(8)) {
    case 0:
      if (Array.isArray(container)) container.splice(Number(key), 1);
      else delete holder[key];
      break;
    case 1:
      holder[key] = [holder[key]];
      break;
    case 2:
      holder[key] = { [source.pick(['type', 'content', 'id', 'default', '__proto__'])]: holder[key] };
      break;
    case 3:
      holder[key] = anotherValue(root, source);
      break;
    case 4:
      holder[key] = source.text();
      break;
    case 5:
      addMember(holder[key] ?? container, source);
      break;
    case 6:
      holder[key] =
        typeof holder[key] === 'number' ? holder[key] + source.pick([1, -1, 0.5, 1000]) : holder[key];
      break;
    default:
      holder[key] = source.below(64) === 63 ? nested(source) : source.pick(scalars);
  }
}

/** A member somewhere in the value; the root itself where it has none. */
function choosePlace(root: { value: unknown }, source: ByteSource): [Container, string] {
  let container: Container = root;
  let key = 'value';
  for (;;) {
    const value: unknown = (container as Record<string, unknown>)[key];
    const keys = typeof value === 'object' && value !== null ? Object.keys(value) : [];
    if (keys.length === 0 || source.below(5) === 0) return [container, key];
    container = value as Container;
    key = keys[source.below(Math.min(keys.length, 65_536))]!;
  }
}

function anotherValue(root: { value: unknown }, source: ByteSource): unknown {
  const [container, key] = choosePlace(root, source);
  return structuredClone((container as Record<string, unknown>)[key]);
}

function addMember(target: unknown, source: ByteSource): void {
  if (Array.isArray(target))
    target.push(target.length > 0 ? structuredClone(target[0]) : source.pick(scalars));
  else if (typeof target === 'object' && target !== null)
    Object.defineProperty(target, source.text(), {
      value: source.pick(scalars),
      enumerable: true,
      configurable: true,
      writable: true,
    });
}

function nested(source: ByteSource): unknown {
  let value: unknown = source.pick(scalars);
  for (let depth = source.below(maxDeep); depth > 0; depth--)
    value = depth % 2 === 0 ? [value] : { a: value };
  return value;
}
