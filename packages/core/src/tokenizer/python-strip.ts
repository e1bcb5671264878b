/**
 * Python's `text.strip(characters)`, `lstrip` and `rstrip` in templates: the library ignores the argument and strips all
 * white space, which would change prompts. Such calls become calls of the functions below.
 */
import type { Template } from '@huggingface/jinja';
import { walk } from './jinja-nodes.js';

const methods = new Set(['strip', 'lstrip', 'rstrip']);

/** What the rewritten template calls, by the names it uses. */
export const stripFunctions: Readonly<Record<string, (text: unknown, characters: unknown) => string>> = {
  __strip: (text, characters) => stripEnd(stripStart(text, characters), characters),
  __lstrip: stripStart,
  __rstrip: stripEnd,
};

/** Rewrites the template in place. */
export function useStripFunctions(program: Template['parsed']): void {
  for (const node of walk(program)) {
    if (node.type !== 'CallExpression') continue;
    const { callee, args } = node as unknown as { callee: CalledMember; args: unknown[] };
    if (
      callee.type !== 'MemberExpression' ||
      args.length !== 1 ||
      !methods.has(String(callee.property.value))
    )
      continue;
    node.args = [callee.object, ...args];
    node.callee = { type: 'Identifier', value: `__${String(callee.property.value)}` };
  }
}

interface CalledMember {
  readonly type: string;
  readonly object: unknown;
  readonly property: { readonly value: unknown };
}

function stripStart(text: unknown, characters: unknown): string {
  const units = Array.from(requireText(text));
  if (characters === null) return units.join('').trimStart();
  const start = units.findIndex((unit) => !requireText(characters).includes(unit));
  return start < 0 ? '' : units.slice(start).join('');
}

function stripEnd(text: unknown, characters: unknown): string {
  const units = Array.from(requireText(text));
  if (characters === null) return units.join('').trimEnd();
  const end = units.findLastIndex((unit) => !requireText(characters).includes(unit));
  return units.slice(0, end + 1).join('');
}

function requireText(value: unknown): string {
  if (typeof value === 'string') return value;
  throw new TypeError('strip() is for strings');
}
