/** Whether a chat template loops over the parts of a message's content or takes it as one string. */
import type { Template } from '@huggingface/jinja';
import { walk, type Node } from './jinja-nodes.js';

/**
 * True if the template loops over `….content` (or over a variable set from it) and never asks whether something is a
 * string: such a template needs a list of parts. Any other can take a string.
 */
export function expectsContentParts(program: Template['parsed']): boolean {
  const nodes = [...walk(program)];
  const aliases = new Set(['content']);
  for (const node of nodes) {
    if (node.type !== 'Set') continue;
    const { assignee, value } = node as unknown as { assignee: Node; value: Node | null };
    if (assignee.type === 'Identifier' && value !== null && isContentMember(value))
      aliases.add(String(assignee.value));
  }
  const loopsOverParts = nodes.some(
    (node) => node.type === 'For' && isContent(node.iterable as Node, aliases),
  );
  return loopsOverParts && !nodes.some(isStringTest);
}

function isContent(node: Node, aliases: ReadonlySet<string>): boolean {
  if (node.type === 'SelectExpression') return isContent(node.lhs as Node, aliases);
  if (node.type === 'FilterExpression') return isContent(node.operand as Node, aliases);
  return isContentMember(node) || (node.type === 'Identifier' && aliases.has(String(node.value)));
}

function isContentMember(node: Node): boolean {
  return node.type === 'MemberExpression' && (node.property as Node).value === 'content';
}

function isStringTest(node: Node): boolean {
  return node.type === 'TestExpression' && (node.test as Node).value === 'string';
}
