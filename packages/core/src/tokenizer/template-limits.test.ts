import { describe, expect, it } from 'vitest';
import { TenonError } from '../errors.js';
import { ChatTemplates } from './chat-template.js';
import { withinTime } from './template-limits.js';

/** The template's rendering, or the error that it ends with, and how long that took. */
function render(
  template: string,
  kwargs: Readonly<Record<string, unknown>> = {},
): { readonly text?: string; readonly error?: string; readonly ms: number } {
  const chat = new ChatTemplates(new Map([['default', template]]), {});
  const start = performance.now();
  try {
    const text = chat.render([{ role: 'user', content: 'hello' }], { kwargs });
    return { text, ms: performance.now() - start };
  } catch (error) {
    expect(error).toBeInstanceOf(TenonError);
    expect((error as TenonError).code).toBe('request.chat-template');
    return { error: (error as TenonError).message, ms: performance.now() - start };
  }
}

describe('a template without end', () => {
  const loop = (body: string) => `{% for i in range(100000) %}${body}{% endfor %}`;

  it('is stopped in nested loops', () => {
    const { error, ms } = render(loop(loop(loop('{% set x = 1 %}'))));
    expect(error).toContain('took more than 1000 ms');
    expect(ms).toBeLessThan(5000);
  });

  it('is stopped within one filter', () => {
    // One sort, each of whose comparisons turns both texts, of 1 M characters, to lower case.
    const many = Array.from({ length: 5000 }, (_, i) => ({ name: `${i}${'A'.repeat(2 ** 20)}` }));
    const { error, ms } = render('{{ many | sort(attribute="name") | length }}', { many });
    expect(error).toContain('took more than 1000 ms');
    expect(ms).toBeLessThan(5000);
  });

  it('is stopped while it is parsed', () => {
    expect(render(' '.repeat(300_000)).error).toContain('took more than 1000 ms');
  });

  it('is an error where it calls itself', () => {
    expect(render('{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}').error).toBeDefined();
    expect(render(`{{ ${'('.repeat(100_000)}1${')'.repeat(100_000)} }}`).error).toContain('call stack');
    expect(render('{% set ns = namespace() %}{% set ns.a = ns %}{{ ns | tojson }}').error).toBeDefined();
  });
});

describe('a template that makes too much', () => {
  it('may not ask for endless ranges', () => {
    expect(render('{{ range(1000000000) | length }}').error).toContain('a range of more than 100000');
    expect(render('{{ range(0, 1, 0.0000001) | length }}').error).toContain('a range of more than 100000');
    expect(render('{{ range(100000) | length }}').text).toBe('100000');
  });

  it('may not double a text or a list for ever', () => {
    const doubled = (first: string, plus: string) =>
      `{% set ns = namespace(x=${first}) %}{% for i in range(60) %}{% set ns.x = ns.x ${plus} ns.x %}{% endfor %}`;
    expect(render(doubled("'x'", '+')).error).toContain('made a value of');
    expect(render(doubled("'x'", '~')).error).toContain('made a value of');
    expect(render(doubled('[1]', '+')).error).toContain('made a value of');
    expect(render("{{ 'x' | indent(1000000000, true) }}").error).toBeDefined();
    expect(render("{{ 'x' | indent(500000000, true) | length }}").error).toContain('made a value of');
  });

  it('may not keep many large texts', () => {
    const keep = '{% set ns = namespace(all=[]) %}{% for i in range(1000) %}' +
      "{% set ns.all = ns.all + [('x' ~ i) | indent(10000000, true)] %}{% endfor %}"; // prettier-ignore
    expect(render(keep).error).toContain('made values of more than');
  });
});

describe('withinTime', () => {
  it('passes results and errors on, also of work within work', () => {
    expect(withinTime(() => withinTime(() => [1]))).toEqual([1]);
    const error = new Error('mine');
    expect(() =>
      withinTime(() => {
        throw error;
      }),
    ).toThrow(error);
  });

  it('stops a regex', () => {
    expect(() => withinTime(() => /(a+)+$/.test(`${'a'.repeat(40)}b`), 50)).toThrow('50 ms');
    expect(withinTime(() => 1)).toBe(1);
  });
});
