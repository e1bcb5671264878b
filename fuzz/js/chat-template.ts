/** Jinja templates over fixed messages: raw text, with a dictionary of the language. */
import { ChatTemplates } from '../../packages/core/src/tokenizer/chat-template.js';
import type { ChatMessage } from '../../packages/core/src/tokenizer/types.js';
import { requireNamed } from './oracle.js';

const messages: readonly ChatMessage[] = [
  { role: 'system', content: 'Be kind.' },
  { role: 'user', content: 'Hi <b>\n' },
  {
    role: 'assistant',
    content: null,
    tool_calls: [{ function: { name: 'f', arguments: '{"x":[1,2.5,null]}' } }],
  },
  { role: 'user', content: [{ type: 'text', text: 'one' }] },
];
const tools = [
  { type: 'function', function: { name: 'f', parameters: { type: 'object', properties: { x: {} } } } },
];
/** The watchdog's limit of 1 s, and what this machine may need to notice. */
const maxMs = 2500;
const maxLength = 2 ** 24;

export function fuzz(data: Buffer): void {
  const template = data.toString();
  const chat = new ChatTemplates(new Map([['default', template]]), { bos_token: '<s>', eos_token: '</s>' });
  const start = performance.now();
  try {
    const text = chat.render(messages, { addGenerationPrompt: true, tools });
    if (text.length > maxLength) throw new Error(`a finding: ${text.length} characters`);
  } catch (error) {
    requireNamed(error);
  }
  const ms = performance.now() - start;
  if (ms > maxMs) throw new Error(`a finding: the case took ${Math.round(ms)} ms`);
}
