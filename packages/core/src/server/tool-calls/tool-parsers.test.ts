import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ToolDelta, ToolParserExtension } from '../../extensions/tool-parser.js';
import { hermesToolParser } from './hermes.js';
import { llama3JsonToolParser } from './llama3-json.js';
import { loadToolParser } from './tool-parsers.js';

/** Content and calls, neighbouring pieces joined: `'text'` and `{ name, json }`. */
type Read = string | { name: string; json: string };

function join(deltas: readonly ToolDelta[]): Read[] {
  const read: Read[] = [];
  for (const delta of deltas) {
    const last = read.at(-1);
    if (delta.type === 'call') read.push({ name: delta.name, json: '' });
    else if (delta.type === 'arguments') (last as { json: string }).json += delta.json;
    else if (typeof last === 'string') read[read.length - 1] = last + delta.text;
    else read.push(delta.text);
  }
  return read;
}

/** The text in these pieces, then its end. */
function parse({ create }: ToolParserExtension, ...pieces: string[]): Read[] {
  const parser = create({ tools: [] });
  return join([...pieces.flatMap((piece) => [...parser.push(piece)]), ...parser.finish()]);
}

const call = (name: string, json: string): string =>
  `<tool_call>\n{"name": "${name}", "arguments": ${json}}\n</tool_call>`;

const hermesAnswers: readonly (readonly [string, string, Read[]])[] = [
  ['a call', call('f', '{"a": 1}'), [{ name: 'f', json: '{"a": 1}' }]],
  [
    'text around calls, and white space beside them',
    `I look.\n\n${call('f', '{}')}\n${call('g', '{"b": [1, {"c": "}"}]}')}\n Done. `,
    ['I look.', { name: 'f', json: '{}' }, { name: 'g', json: '{"b": [1, {"c": "}"}]}' }, 'Done. '],
  ],
  [
    'quotes, braces and tags in strings',
    call('f', String.raw`{"a": "\"}</tool_call>\\", "b": "<tool_call>"}`),
    [{ name: 'f', json: String.raw`{"a": "\"}</tool_call>\\", "b": "<tool_call>"}` }],
  ],
  [
    'arguments before the name, under their other word, beside other fields',
    '<tool_call>{"id": 3, "parameters": {"a": 1}, "x": [], "name": "f"}</tool_call>',
    [{ name: 'f', json: '{"a": 1}' }],
  ],
  [
    'arguments as a string of JSON',
    String.raw`<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>`,
    [{ name: 'f', json: '{"a": 1}' }],
  ],
  ['no arguments', '<tool_call>{"name": "f"}</tool_call>', [{ name: 'f', json: '{}' }]],
  ['null arguments', '<tool_call>{"name": "f", "arguments": null}</tool_call>', [{ name: 'f', json: '{}' }]],
  [
    'a call that is cut off',
    '<tool_call>{"name": "f", "arguments": {"a": "b',
    [{ name: 'f', json: '{"a": "b' }],
  ],
  [
    'a call that lacks its last brace',
    '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call> so',
    [{ name: 'f', json: '{"a": 1}' }, 'so'],
  ],
  [
    'a call that lacks its closing tag',
    `<tool_call>{"name": "f", "arguments": {}}\n${call('g', '{}')}`,
    [
      { name: 'f', json: '{}' },
      { name: 'g', json: '{}' },
    ],
  ],
  ['what is no JSON', 'a <tool_call>f(1)</tool_call> b', ['a <tool_call>f(1)</tool_call> b']],
  ['JSON without a name', '<tool_call>{"a": 1}</tool_call>', ['<tool_call>{"a": 1}</tool_call>']],
  ['a name that is cut off', 'x <tool_call>{"name": "f', ['x <tool_call>{"name": "f']],
  ['text alone', ' a < b, <tool_cal \n', [' a < b, <tool_cal \n']],
  ['nothing', '', []],
];

const llamaAnswers: readonly (readonly [string, string, Read[]])[] = [
  ['a call', '{"name": "f", "parameters": {"a": 1}}', [{ name: 'f', json: '{"a": 1}' }]],
  [
    'several',
    '<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "arguments": {"a": ";"}}\n',
    [
      { name: 'f', json: '{}' },
      { name: 'g', json: '{"a": ";"}' },
    ],
  ],
  ['white space before, text behind', '\n {"type": "function", "name": "f", "parameters": {}} Done.', [{ name: 'f', json: '{}' }, 'Done.']], // prettier-ignore
  ['an answer in JSON', ' {"name": "Ann", "age": 3} ', [' {"name": "Ann", "age": 3} ']],
  ['text', 'It is {"name": "f", "parameters": {}}', ['It is {"name": "f", "parameters": {}}']],
  ['a tag that is none', '<|python', ['<|python']],
  ['JSON that is cut off', '<|python_tag|>{"name": "f"', ['<|python_tag|>{"name": "f"']],
  ['nothing', '', []],
];

const cases = [
  ...hermesAnswers.map((answer) => ['hermes', hermesToolParser, ...answer] as const),
  ...llamaAnswers.map((answer) => ['llama3_json', llama3JsonToolParser, ...answer] as const),
];

describe.each(cases)('%s', (_, parser, what, text, expected) => {
  it(`reads ${what}`, () => expect(parse(parser, text)).toEqual(expected));
  it(`reads ${what} character by character`, () => expect(parse(parser, ...text)).toEqual(expected));
});

describe('tool parsers', () => {
  const parts = ['<tool_call>', '</tool_call>', '{"name": "f", "arguments": ', '{"a": "\\"', '"}', '}', ' ', '\n', ';', 'text', '<', '<|python_tag|>', '{', '"name"']; // prettier-ignore
  const texts = fc.array(fc.constantFrom(...parts), { maxLength: 12 }).map((list) => list.join(''));

  it.each([
    ['hermes', hermesToolParser],
    ['llama3_json', llama3JsonToolParser],
  ])('%s reads any text alike, however it is cut', (_, parser) => {
    fc.assert(
      fc.property(texts, fc.array(fc.nat(), { maxLength: 6 }), (text, cuts) => {
        const places = [0, ...cuts.map((cut) => cut % (text.length + 1)), text.length].toSorted(
          (a, b) => a - b,
        );
        const pieces = places.slice(1).map((place, i) => text.slice(places[i], place));
        expect(parse(parser, ...pieces)).toEqual(parse(parser, text));
      }),
      { numRuns: 1000 },
    );
  });

  it('leave text without calls as it is', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (text) => {
        expect(parse(hermesToolParser, text).join('')).toBe(text);
        expect(parse(llama3JsonToolParser, `-${text}`).join('')).toBe(`-${text}`);
      }),
    );
  });

  it('tell the name once it is known, and arguments as they come', () => {
    const parser = hermesToolParser.create({ tools: [] });
    expect(parser.push('Yes. <tool_call>{"name": "f", "argu')).toEqual([{ type: 'content', text: 'Yes.' }]);
    expect(parser.push('ments": {"a": ')).toEqual([
      { type: 'call', name: 'f' },
      { type: 'arguments', json: '{"a": ' },
    ]);
    expect(parser.push('1')).toEqual([{ type: 'arguments', json: '1' }]);
    expect(parser.push('}}')).toEqual([{ type: 'arguments', json: '}' }]);
  });

  it('are found by name, and named where one is not found', async () => {
    const search = { plugins: [], root: import.meta.dirname };
    expect((await loadToolParser('hermes', search)).extension).toBe(hermesToolParser);
    await expect(loadToolParser('nope', search)).rejects.toMatchObject({
      code: 'config.extension-not-found',
      message: expect.stringMatching(/no tool parser 'nope'.*; built in: hermes, llama3_json$/) as string,
    });
  });
});
