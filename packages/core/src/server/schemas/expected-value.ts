/** What a schema asks of a value, in words: for error messages and for docs/api.md. */

/** The parts of JSON Schema that our schemas use. */
export interface ValueSchema {
  readonly type?: string;
  readonly const?: unknown;
  readonly anyOf?: readonly ValueSchema[];
  readonly items?: ValueSchema;
  readonly minItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, ValueSchema>>;
}

/** `an integer of at least 1`, `a string or a list of strings`. Null counts as absent everywhere, and is not said. */
export function expectedValue(schema: ValueSchema): string {
  if ('const' in schema) return JSON.stringify(schema.const);
  if (schema.anyOf !== undefined)
    return schema.anyOf.filter((option) => option.type !== 'null').map(expectedValue).join(' or '); // prettier-ignore
  switch (schema.type) {
    case 'string':
      return stringValue(schema);
    case 'integer':
      return `an integer${rangeOf(schema)}`;
    case 'number':
      return `a number${rangeOf(schema)}`;
    case 'boolean':
      return 'true or false';
    case 'array':
      return `a ${schema.minItems === undefined ? '' : 'non-empty '}list${itemsOf(schema.items)}`;
    default:
      return 'an object';
  }
}

function stringValue({ minLength, maxLength }: ValueSchema): string {
  const kind = minLength === undefined ? 'a string' : 'a non-empty string';
  return maxLength === undefined ? kind : `${kind} of at most ${maxLength} characters`;
}

function rangeOf({ minimum, exclusiveMinimum, maximum }: ValueSchema): string {
  const from = minimum ?? exclusiveMinimum;
  if (from === undefined) return maximum === undefined ? '' : ` of at most ${maximum}`;
  const lower = exclusiveMinimum === undefined ? `of at least ${from}` : `above ${from}`;
  if (maximum === undefined) return ` ${lower}`;
  return exclusiveMinimum === undefined ? ` from ${from} to ${maximum}` : ` ${lower} and at most ${maximum}`;
}

const plurals: Readonly<Record<string, string>> = {
  string: 'strings',
  integer: 'integers',
  number: 'numbers',
  object: 'objects',
  array: 'lists',
};

function itemsOf(items: ValueSchema | undefined): string {
  if (items?.type === undefined) return '';
  const nonEmpty = items.minLength === undefined && items.minItems === undefined ? '' : 'non-empty ';
  const inner = items.type === 'array' ? itemsOf(items.items) : '';
  return ` of ${nonEmpty}${plurals[items.type]}${inner}`;
}
