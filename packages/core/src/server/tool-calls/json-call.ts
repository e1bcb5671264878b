/** One tool call as JSON, `{"name": …, "arguments": {…}}`, read while it is written. */
import type { ToolDelta } from '../../extensions/tool-parser.js';

export interface JsonCallOptions {
  /** An object that has a name alone is no call. */
  readonly needsArguments: boolean;
}

/** Two words are in use for the same. */
const argumentKeys: readonly string[] = ['arguments', 'parameters'];

/**
 * Scans the object's top level. The name is told once it is known and the arguments have begun; these follow as they come,
 * character by character, so whether they are valid is for the client to see.
 */
export class JsonCall {
  /** open: more is to come; closed: the object is complete; broken: what follows cannot belong to it. */
  state: 'open' | 'closed' | 'broken' = 'open';
  readonly #options: JsonCallOptions;
  #text = '';
  /** The next character to look at. */
  #at = 0;
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  #stringFrom = 0;
  /** Of the top level: the key whose value is read, and where that begins. */
  #key: string | undefined = undefined;
  #valueFrom: number | undefined = undefined;
  #name: string | undefined = undefined;
  #argumentsFrom: number | undefined = undefined;
  #argumentsEnd: number | undefined = undefined;
  #isTold = false;
  /** Characters of the arguments that have been told. */
  #numTold = 0;

  constructor(options: JsonCallOptions) {
    this.#options = options;
  }

  /** Whether its name has been told. */
  get isCall(): boolean {
    return this.#isTold;
  }

  /** What was read as the object. */
  get text(): string {
    return this.#text.slice(0, this.#at);
  }

  /** Takes more text. `rest` is what lies behind the object, once it is no longer open. */
  push(text: string): { readonly deltas: ToolDelta[]; readonly rest: string } {
    this.#text += text;
    while (this.state === 'open' && this.#at < this.#text.length) this.#read(this.#text[this.#at]!);
    return { deltas: [...this.#tellName(), ...this.#tellArguments()], rest: this.#text.slice(this.#at) };
  }

  #read(character: string): void {
    if (this.#isInString) this.#readString(character);
    else if (character === '"' && this.#depth > 0) this.#openString();
    else if (!this.#accept(character)) {
      this.state = 'broken';
      return;
    }
    this.#at++;
  }

  #openString(): void {
    this.#isInString = true;
    this.#stringFrom = this.#at;
    if (this.#depth === 1 && this.#key !== undefined) this.#beginValue();
  }

  #readString(character: string): void {
    if (this.#isEscaped) this.#isEscaped = false;
    else if (character === '\\') this.#isEscaped = true;
    else if (character === '"') {
      this.#isInString = false;
      if (this.#depth > 1) return;
      if (this.#key === undefined) this.#key = parsed(this.#text.slice(this.#stringFrom, this.#at + 1)) ?? '';
      else this.#endValue(this.#at + 1);
    }
  }

  /** Whether a character outside of strings may stand here. */
  #accept(character: string): boolean {
    if (/\s/.test(character)) return true;
    if (this.#depth === 0) return this.#open(character, '{');
    if (this.#depth > 1) return this.#open(character, '{[') || this.#close(character) || isPlain(character);
    if (character === '}') return this.#closeObject();
    if (character === ',') return this.#endEntry();
    if (this.#key === undefined) return false;
    if (character === ':') return true;
    this.#beginValue();
    return this.#open(character, '{[') || isPlain(character);
  }

  #open(character: string, openers: string): boolean {
    if (!openers.includes(character)) return false;
    this.#depth++;
    return true;
  }

  #close(character: string): boolean {
    if (!'}]'.includes(character)) return false;
    if (--this.#depth === 1) this.#endValue(this.#at + 1);
    return true;
  }

  #closeObject(): boolean {
    this.#endValue(this.#at);
    this.state = 'closed';
    return true;
  }

  #endEntry(): boolean {
    this.#endValue(this.#at);
    this.#key = undefined;
    return true;
  }

  #beginValue(): void {
    this.#valueFrom ??= this.#at;
    if (argumentKeys.includes(this.#key!)) this.#argumentsFrom ??= this.#valueFrom;
  }

  #endValue(end: number): void {
    if (this.#valueFrom === undefined) return;
    if (this.#key === 'name') this.#name = parsed(this.#text.slice(this.#valueFrom, end));
    if (argumentKeys.includes(this.#key!)) this.#argumentsEnd ??= end;
    this.#valueFrom = undefined;
  }

  #tellName(): ToolDelta[] {
    const isEnough =
      this.#argumentsFrom !== undefined || (this.state === 'closed' && !this.#options.needsArguments);
    if (this.#isTold || this.#name === undefined || !isEnough) return [];
    this.#isTold = true;
    return [{ type: 'call', name: this.#name }];
  }

  #tellArguments(): ToolDelta[] {
    if (!this.#isTold) return [];
    const json = this.#argumentsSoFar();
    const news = json.slice(this.#numTold);
    this.#numTold = json.length;
    return news === '' ? [] : [{ type: 'arguments', json: news }];
  }

  /** Arguments that are a string hold JSON text themselves; without any, there are none. */
  #argumentsSoFar(): string {
    if (this.#argumentsFrom === undefined) return '{}';
    if ('{['.includes(this.#text[this.#argumentsFrom]!))
      return this.#text.slice(this.#argumentsFrom, this.#argumentsEnd ?? this.#at);
    if (this.#argumentsEnd === undefined) return '';
    const value = this.#text.slice(this.#argumentsFrom, this.#argumentsEnd).trimEnd();
    return value === 'null' ? '{}' : (parsed(value) ?? value);
  }
}

/** Of numbers, literals, and between values. */
const isPlain = (character: string): boolean => /[\w+.,:-]/.test(character);

/** The string that a JSON text stands for; undefined where it is none. */
function parsed(json: string): string | undefined {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}
