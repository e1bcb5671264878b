/** Calls as Llama 3 writes them: the whole answer is `{"name": …, "parameters": {…}}`, or several of them with `;` between. */
import type { ToolDelta, ToolParser, ToolParserExtension } from '../../extensions/tool-parser.js';
import { JsonCall } from './json-call.js';

/** May stand before the first call. */
const pythonTag = '<|python_tag|>';

export const llama3JsonToolParser: ToolParserExtension = {
  keepsSpecialTokens: true,
  create: () => new Llama3JsonToolParser(),
};

/** An answer that does not begin with a call is text to its end; so is what follows the last call. */
class Llama3JsonToolParser implements ToolParser {
  #where: 'beginning' | 'call' | 'between' | 'text' = 'beginning';
  /** Text that has not been read. */
  #held = '';
  /** What stood before the object that is being read. */
  #before = '';
  #call = new JsonCall({ needsArguments: true });

  push(text: string): ToolDelta[] {
    this.#held += text;
    const deltas: ToolDelta[] = [];
    while (this.#read(deltas));
    return deltas;
  }

  finish(): ToolDelta[] {
    if (this.#where === 'call') return this.#call.isCall ? [] : contentOf(this.#before + this.#call.text);
    return contentOf(this.#where === 'between' ? '' : this.#held);
  }

  /** Reads up to the next change; false when that needs more text. */
  #read(deltas: ToolDelta[]): boolean {
    if (this.#where === 'call') return this.#readCall(deltas);
    if (this.#where === 'text') return this.#readText(deltas);
    return this.#readGap();
  }

  #readText(deltas: ToolDelta[]): boolean {
    deltas.push(...contentOf(this.#held));
    this.#held = '';
    return false;
  }

  /** What may stand before a call, and whether one begins behind it. */
  #readGap(): boolean {
    const isFirst = this.#where === 'beginning';
    const [gap] = (isFirst ? /^\s*(?:<\|python_tag\|>\s*)?/ : /^[\s;]*/).exec(this.#held)!;
    const next = this.#held.slice(gap.length);
    if (next === '' || (isFirst && pythonTag.startsWith(next))) return false;
    this.#where = next.startsWith('{') ? 'call' : 'text';
    if (this.#where === 'call') {
      this.#before = isFirst ? gap : '';
      this.#call = new JsonCall({ needsArguments: true });
      this.#held = next;
    } else if (!isFirst) this.#held = next;
    return true;
  }

  #readCall(deltas: ToolDelta[]): boolean {
    const { deltas: found, rest } = this.#call.push(this.#held);
    deltas.push(...found);
    this.#held = rest;
    if (this.#call.state === 'open') return false;
    if (!this.#call.isCall) deltas.push(...contentOf(this.#before + this.#call.text));
    this.#where = this.#call.isCall ? 'between' : 'text';
    return true;
  }
}

const contentOf = (text: string): ToolDelta[] => (text === '' ? [] : [{ type: 'content', text }]);
