/** Calls as Hermes and Qwen write them: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, among other text. */
import type { ToolDelta, ToolParser, ToolParserExtension } from '../../extensions/tool-parser.js';
import { JsonCall } from './json-call.js';

const opening = '<tool_call>';
const closing = '</tool_call>';

export const hermesToolParser: ToolParserExtension = {
  // In some of these models, the tags are special tokens.
  keepsSpecialTokens: true,
  create: () => new HermesToolParser(),
};

/** White space beside a call belongs to it. What is no call in spite of its tag stays text. */
class HermesToolParser implements ToolParser {
  #where: 'text' | 'call' | 'behind-call' = 'text';
  /** Text that has not been read. */
  #held = '';
  /** The white space and the tag before the object that is being read. */
  #before = '';
  #call = new JsonCall({ needsArguments: false });
  /** The last thing read was a call. */
  #followsCall = false;

  push(text: string): ToolDelta[] {
    this.#held += text;
    const deltas: ToolDelta[] = [];
    while (this.#read(deltas));
    return deltas;
  }

  finish(): ToolDelta[] {
    if (this.#where === 'call') return this.#call.isCall ? [] : contentOf(this.#before + this.#call.text);
    if (this.#where === 'behind-call') return [];
    return contentOf(this.#followsCall ? this.#held.trimStart() : this.#held);
  }

  /** Reads up to the next change; false when that needs more text. */
  #read(deltas: ToolDelta[]): boolean {
    if (this.#where === 'text') return this.#readText(deltas);
    if (this.#where === 'call') return this.#readCall(deltas);
    return this.#readBehindCall();
  }

  #readText(deltas: ToolDelta[]): boolean {
    if (this.#followsCall) this.#held = this.#held.trimStart();
    const begin = this.#held.indexOf(opening);
    const end = begin === -1 ? this.#held.length - partOfTag(this.#held) : begin;
    const text = this.#held.slice(0, end).trimEnd();
    deltas.push(...contentOf(text));
    if (text !== '') this.#followsCall = false;
    if (begin === -1) {
      this.#held = this.#held.slice(text.length);
      return false;
    }
    this.#before = this.#held.slice(text.length, begin + opening.length);
    this.#held = this.#held.slice(begin + opening.length);
    this.#call = new JsonCall({ needsArguments: false });
    this.#where = 'call';
    return true;
  }

  #readCall(deltas: ToolDelta[]): boolean {
    const { deltas: found, rest } = this.#call.push(this.#held);
    deltas.push(...found);
    this.#held = rest;
    if (this.#call.state === 'open') return false;
    if (!this.#call.isCall) {
      deltas.push(...contentOf(this.#before + this.#call.text));
      this.#where = 'text';
      this.#followsCall = false;
      return true;
    }
    this.#where = 'behind-call';
    return true;
  }

  /** The closing tag; where a model forgets it, the text goes on. */
  #readBehindCall(): boolean {
    this.#held = this.#held.trimStart();
    const isWhole = this.#held.startsWith(closing);
    if (!isWhole && closing.startsWith(this.#held)) return false;
    if (isWhole) this.#held = this.#held.slice(closing.length);
    this.#where = 'text';
    this.#followsCall = true;
    return true;
  }
}

/** Characters at the end of a text that may begin a tag. */
function partOfTag(text: string): number {
  for (let length = Math.min(text.length, opening.length - 1); length > 0; length--)
    if (opening.startsWith(text.slice(-length))) return length;
  return 0;
}

const contentOf = (text: string): ToolDelta[] => (text === '' ? [] : [{ type: 'content', text }]);
