/** From the bytes of a body to one that matches the route's schema; what does not match is a 400 that names the dotted path. */
import type { FastifyInstance, FastifyRequest, FastifySchemaValidationError } from 'fastify';

import { TenonError } from '../errors.js';
import { expectedValue, type ValueSchema } from './schemas/expected-value.js';

/** Fields that are null count as absent, as in vLLM; anything but an object is no request. */
export function registerBodyRules(app: FastifyInstance): void {
  app.removeContentTypeParser('text/plain');
  app.addHook('preValidation', async (request) => {
    if (request.method !== 'POST' || (request.body === undefined && !takesBody(request))) return;
    if (typeof request.body !== 'object' || request.body === null || Array.isArray(request.body)) {
      throw new TenonError(
        'request.invalid-body',
        `the body must be a JSON object, not ${describe(request.body)}`,
      );
    }
    const body = request.body as Record<string, unknown>;
    for (const name of Object.keys(body)) if (body[name] === null) delete body[name];
  });
}

function takesBody(request: FastifyRequest): boolean {
  return request.routeOptions.schema?.body !== undefined;
}

export function schemaError(errors: FastifySchemaValidationError[]): Error {
  const error = errors.at(-1);
  if (error === undefined)
    return new TenonError('request.invalid-body', 'the body does not match the schema');
  const { parentSchema, data } = error as { parentSchema?: ValueSchema; data?: unknown };
  const path = error.instancePath.slice(1).replaceAll('/', '.');
  if (error.keyword === 'required') {
    const missing = [path, String(error.params['missingProperty'])].filter(Boolean).join('.');
    return new TenonError('request.invalid-body', `'${missing}' is missing`, { param: missing });
  }
  const isRange = error.keyword !== 'anyOf' && error.keyword !== 'type';
  return new TenonError(
    isRange ? 'request.invalid-value' : 'request.invalid-body',
    `'${path}' must be ${expectedValue(parentSchema ?? {})}, not ${describe(data)}`,
    { param: path },
  );
}

const maxDescribedLength = 60;

function describe(value: unknown): string {
  const json = tryStringify(value);
  return json.length > maxDescribedLength ? `${json.slice(0, maxDescribedLength)}…` : json;
}

function tryStringify(value: unknown): string {
  try {
    return JSON.stringify(value) ?? 'nothing';
  } catch {
    return 'a value that nests too deep';
  }
}
