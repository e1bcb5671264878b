/** Typed access to a JSON object of a model file. A wrong value is refused by name, with its value and what was expected. */
import { TenonError } from '../errors.js';

export type JsonObject = Readonly<Record<string, unknown>>;

export interface Range {
  readonly min: number;
  readonly max: number;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export class Fields {
  /** `label` spells a field as the file's reader knows it. */
  constructor(
    readonly raw: JsonObject,
    readonly source: string,
    private readonly label: (name: string) => string = (name) => name,
  ) {}

  /** Absent and null are the same to all readers below, as they are in most config classes. */
  has(name: string): boolean {
    return this.raw[name] !== undefined && this.raw[name] !== null;
  }

  int(name: string, range: Range, fallback?: number): number {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.raw[name];
    if (Number.isInteger(value) && inRange(value as number, range)) return value as number;
    return this.invalid(name, `an integer from ${range.min} to ${range.max}`);
  }

  optionalInt(name: string, range: Range): number | undefined {
    return this.has(name) ? this.int(name, range) : undefined;
  }

  number(name: string, range: Range, fallback?: number): number {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.raw[name];
    if (typeof value === 'number' && inRange(value, range)) return value;
    return this.invalid(name, `a number from ${range.min} to ${range.max}`);
  }

  optionalNumber(name: string, range: Range): number | undefined {
    return this.has(name) ? this.number(name, range) : undefined;
  }

  boolean(name: string, fallback: boolean): boolean {
    if (!this.has(name)) return fallback;
    const value = this.raw[name];
    return typeof value === 'boolean' ? value : this.invalid(name, 'true or false');
  }

  string(name: string, fallback?: string): string {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.raw[name];
    return typeof value === 'string' ? value : this.invalid(name, 'a string');
  }

  strings(name: string): readonly string[] | undefined {
    if (!this.has(name)) return undefined;
    const value = this.raw[name];
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
    return this.invalid(name, 'a list of strings');
  }

  /** One integer or a list of them; empty where absent. */
  ints(name: string, range: Range): readonly number[] {
    if (!this.has(name)) return [];
    const values = [this.raw[name]].flat();
    if (values.every((value) => Number.isInteger(value) && inRange(value as number, range)))
      return values as number[];
    return this.invalid(name, `an integer from ${range.min} to ${range.max}, or a list of them`);
  }

  object(name: string): JsonObject | undefined {
    if (!this.has(name)) return undefined;
    const value = this.raw[name];
    return isJsonObject(value) ? value : this.invalid(name, 'an object');
  }

  /** The fields of the object `raw`, which is or stands for the value of `name`. */
  nested(name: string, raw: JsonObject): Fields {
    return new Fields(raw, this.source, (field) => this.label(`${name}.${field}`));
  }

  /** Throws `config.model-invalid`. */
  invalid(name: string, expected: string): never {
    const value = this.raw[name];
    const what = value === undefined ? 'is missing' : `is ${show(value)}`;
    throw new TenonError(
      'config.model-invalid',
      `${this.source}: ${this.label(name)} ${what}; expected ${expected}`,
      {
        param: name,
      },
    );
  }

  /** Throws `unsupported.model-feature`. */
  unsupported(name: string, supported: string): never {
    throw new TenonError(
      'unsupported.model-feature',
      `${this.source}: ${this.label(name)} ${show(this.raw[name])} is not supported; supported: ${supported}`,
      { param: name },
    );
  }
}

function inRange(value: number, { min, max }: Range): boolean {
  return value >= min && value <= max;
}

function show(value: unknown): string {
  // JSON has no NaN and no Infinity; GGUF metadata may.
  const shown = typeof value === 'number' ? String(value) : String(JSON.stringify(value));
  return shown.length > 80 ? `${shown.slice(0, 77)}...` : shown;
}
