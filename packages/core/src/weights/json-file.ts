/** JSON files of a model folder. */
import { readFile, stat } from 'node:fs/promises';
import { TenonError, type ErrorCode } from '../errors.js';
import { isJsonObject, type JsonObject } from './fields.js';

/** A tokenizer.json of 250,000 tokens takes 35 MB; anything near this is not a model's file. */
const maxJsonBytes = 256 * 2 ** 20;

/** No model's file nests deeper than a dozen; what reads them may recurse. */
const maxJsonDepth = 100;

/** The object in the file; undefined where there is no such file. Anything else is refused with `code`. */
export async function tryReadJsonObject(file: string, code: ErrorCode): Promise<JsonObject | undefined> {
  const text = await tryReadText(file, code);
  return text === undefined ? undefined : parseJsonObject(text, file, code);
}

/** The file's text; undefined where there is no such file. */
export async function tryReadText(file: string, code: ErrorCode): Promise<string | undefined> {
  try {
    const { size } = await stat(file);
    if (size > maxJsonBytes) {
      throw new TenonError(code, `${file} has ${size} bytes; expected at most ${maxJsonBytes}`);
    }
    return await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof TenonError) throw error;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new TenonError(code, `cannot read ${file}: ${(error as Error).message}`, { cause: error });
  }
}

export function parseJsonObject(text: string, source: string, code: ErrorCode): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new TenonError(code, `${source} is not valid JSON: ${(error as Error).message}`, { cause: error });
  }
  if (!isJsonObject(value)) throw new TenonError(code, `${source} holds no JSON object`);
  if (!isWithinDepth(value, maxJsonDepth))
    throw new TenonError(code, `${source} nests values more than ${maxJsonDepth} deep`);
  return value;
}

function isWithinDepth(value: object, depth: number): boolean {
  if (depth === 0) return false;
  for (const member of Array.isArray(value) ? value : Object.values(value)) {
    const isContainer = typeof member === 'object' && member !== null;
    if (isContainer && !isWithinDepth(member as object, depth - 1)) return false;
  }
  return true;
}
