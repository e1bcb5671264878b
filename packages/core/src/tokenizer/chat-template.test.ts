import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TenonError } from '../errors.js';
import { ChatTemplates } from './chat-template.js';
import type { ChatMessage, ChatTemplateOptions } from './types.js';

/** What transformers rendered; see make-chat-templates.py beside the fixture. */
interface Fixture {
  readonly templates: Readonly<Record<string, string>>;
  readonly conversations: readonly (readonly ChatMessage[])[];
  readonly variants: readonly Readonly<Record<string, unknown>>[];
  readonly cases: readonly {
    readonly template: string;
    readonly conversation: number;
    readonly variant: number;
    readonly text?: string;
    readonly error?: string;
  }[];
}

const fixture = JSON.parse(
  readFileSync(new URL('../../tests/fixtures/tokenizers/chat-templates.json', import.meta.url), 'utf8'),
) as Fixture;
const tokens = { bos_token: '<|endoftext|>', eos_token: '<|im_end|>' };
const hello: ChatMessage = { role: 'user', content: 'hello' };

function templates(source?: string): ChatTemplates {
  return new ChatTemplates(new Map(source === undefined ? [] : [['default', source]]), tokens);
}

function optionsOf(variant: Readonly<Record<string, unknown>>): ChatTemplateOptions {
  const { add_generation_prompt, continue_final_message, tools, documents, ...kwargs } = variant;
  return {
    addGenerationPrompt: add_generation_prompt as boolean | undefined,
    continueFinalMessage: continue_final_message as boolean | undefined,
    tools: tools as unknown[] | undefined,
    documents: documents as unknown[] | undefined,
    kwargs,
  };
}

function errorOf(action: () => unknown): TenonError {
  try {
    action();
  } catch (error) {
    if (error instanceof TenonError) return error;
    throw error;
  }
  throw new Error('no error was thrown');
}

describe.each(Object.keys(fixture.templates))('the %s template', (name) => {
  const chat = templates(fixture.templates[name]);
  const cases = fixture.cases.filter((entry) => entry.template === name);

  it('renders as transformers does', () => {
    for (const { conversation, variant, text, error } of cases) {
      const options = optionsOf(fixture.variants[variant]!);
      const messages = conversationFor(name, fixture.conversations[conversation]!);
      const at = `conversation ${conversation} variant ${variant}`;
      if (text === undefined)
        expect([at, errorOf(() => chat.render(messages, options)).code, error]).toEqual([
          at,
          'request.chat-template',
          error,
        ]);
      else expect([at, chat.render(messages, options)]).toEqual([at, text]);
    }
  });
});

function conversationFor(name: string, messages: readonly ChatMessage[]): readonly ChatMessage[] {
  if (name !== 'parts') return messages;
  const second = { type: 'text', text: 'second' } as const;
  return messages.map((message) => ({
    ...message,
    content: [{ type: 'text', text: message.content as string } as const, second],
  }));
}

describe('a chat template', () => {
  it('gets parts as one string unless it loops over them', () => {
    const message: ChatMessage = {
      role: 'user',
      content: [
        { type: 'text', text: 'one' },
        { type: 'text', text: 'two' },
      ],
    };
    const asString = templates('{% for m in messages %}{{ m.content }}{% endfor %}');
    const asParts = templates(
      "{% for m in messages %}{% for p in m['content'] %}[{{ p.text }}]{% endfor %}{% endfor %}",
    );
    const either = templates(
      '{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}',
    );
    expect(asString.render([message], {})).toBe('one\ntwo');
    expect(asParts.render([message], {})).toBe('[one][two]');
    expect(asParts.render([hello], {})).toBe('[hello]');
    expect(either.render([hello], {})).toBe('hello');
  });

  it('gets the arguments of tool calls as an object, as OpenAI clients send them as text', () => {
    const call = { function: { name: 'f', arguments: '{"x":1}' } };
    const chat = templates('{{ messages[0].tool_calls[0].function.arguments.x }}');
    expect(chat.render([{ role: 'assistant', content: null, tool_calls: [call] }], {})).toBe('1');
    expect(call.function.arguments).toBe('{"x":1}');
  });

  it('passes its own complaint to the client', () => {
    const error = errorOf(() =>
      templates("{{ raise_exception('roles must alternate') }}").render([hello], {}),
    );
    expect([error.code, error.message, error.kind]).toEqual([
      'request.chat-template',
      'roles must alternate',
      'request',
    ]);
  });

  it('may come with the request, by name or as text', () => {
    const named = new ChatTemplates(
      new Map([
        ['default', 'default'],
        ['rag', 'for documents'],
        ['tool_use', 'for tools'],
      ]),
      tokens,
    );
    expect(named.render([hello], {})).toBe('default');
    expect(named.render([hello], { tools: [] })).toBe('for tools');
    expect(named.render([hello], { chatTemplate: 'rag' })).toBe('for documents');
    expect(named.render([hello], { chatTemplate: '{{ eos_token }}!' })).toBe('<|im_end|>!');
  });

  it('lets variables of the request replace its own', () => {
    expect(templates('{{ bos_token }}').render([hello], { kwargs: { bos_token: 'x', range: 1 } })).toBe('x');
  });

  it('says how to give one where the model has none', () => {
    const error = errorOf(() => templates().render([hello], {}));
    expect(error.code).toBe('request.no-chat-template');
    expect(error.message).toContain('--chat-template');
  });

  it('reports broken Jinja and failing templates without a stack trace', () => {
    const broken = errorOf(() => templates('{% for %}').render([hello], {}));
    expect([broken.code, broken.param]).toEqual(['request.chat-template', 'chat_template']);
    const failing = errorOf(() => templates('{{ messages[0].content + none }}').render([hello], {}));
    expect([failing.code, failing.param]).toEqual(['request.chat-template', 'messages']);
    expect(failing.message).not.toContain('\n');
  });

  it('refuses no messages, and to continue a message and start one at once', () => {
    expect(errorOf(() => templates('x').render([], {})).param).toBe('messages');
    const both = { continueFinalMessage: true, addGenerationPrompt: true };
    expect(errorOf(() => templates('x').render([hello], both)).param).toBe('continue_final_message');
    const dropped = errorOf(() => templates('nothing').render([hello], { continueFinalMessage: true }));
    expect(dropped.message).toContain('does not keep the final message');
    const empty = errorOf(() =>
      templates('x').render([{ role: 'assistant', content: null }], { continueFinalMessage: true }),
    );
    expect(empty.message).toContain('no text to continue');
  });

  it('can print the date', () => {
    const year = String(new Date().getFullYear());
    expect(templates("{{ strftime_now('%Y') }}").render([hello], {})).toBe(year);
  });
});
